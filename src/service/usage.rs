//! What every key uses of every model, day by day: gathered in memory, written to the store every two seconds and at the end.

use super::access::Key;
use crate::store::Store;
use crate::store::jobs::JobOwner;
pub use crate::store::usage::{UsageQuery, UsageRow, UsageTotal};
use crate::telemetry;
use crate::wire::Fault;
use jiff::{Timestamp, tz::TimeZone};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often what was gathered is written down: a crash loses no more than this.
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// Key, user and tenant of everyone on a server that asks for no keys.
pub const NO_KEY: &str = "default";

/// What one request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    pub texts: usize,
    pub tokens: usize,
    pub took: Duration,
}

/// The usage of one server.
pub struct Usage {
    store: Store,
    /// By `UsageRow::place`.
    gathered: Mutex<HashMap<String, UsageRow>>,
}

impl Usage {
    /// Nothing gathered yet.
    pub fn new(store: Store) -> Self {
        Self { store, gathered: Mutex::default() }
    }

    /// Notes one request.
    pub fn note(&self, key: Option<&Key>, model: &str, used: Used) {
        let row = row(key, model, used, Timestamp::now());
        telemetry::KEY_REQUESTS.add([&row.key_id, model], 1);
        telemetry::KEY_TOKENS.add([&row.key_id, model], used.tokens as u64);
        merge(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner), row);
    }

    /// Writes down what was gathered. If the store fails it is kept for the next time.
    pub async fn flush(&self) {
        let rows: Vec<UsageRow> = std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect();
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.store.add_usage(&rows).await {
            tracing::error!(%error, "usage cannot be written; it is kept in memory");
            let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            rows.into_iter().for_each(|row| merge(&mut gathered, row));
        }
    }

    /// Writes from time to time, for ever.
    pub async fn run(&self) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
        loop {
            ticks.tick().await;
            self.flush().await;
        }
    }

    /// The rows asked for, newest day first, with all that this server has gathered.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn rows(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, Fault> {
        self.flush().await;
        super::stored(self.store.usage(query).await)
    }
}

impl Usage {
    /// Sums of the rows asked for, by model; however many rows there are.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn totals(&self, query: &UsageQuery) -> Result<Vec<UsageTotal>, Fault> {
        self.flush().await;
        super::stored(self.store.usage_totals(query).await)
    }
}

/// What one request used, as a row.
pub(super) fn row(key: Option<&Key>, model: &str, used: Used, at: Timestamp) -> UsageRow {
    let word = |word: Option<&String>| word.map_or_else(|| NO_KEY.to_owned(), String::clone);
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    UsageRow {
        day: at.to_zoned(TimeZone::UTC).date().to_string(),
        key_id: word(key.map(|key| &key.id)),
        model: model.to_owned(),
        key_name: word(key.map(|key| &key.name)),
        user: word(key.map(|key| &key.user)),
        tenant: word(key.map(|key| &key.tenant)),
        requests: 1,
        texts: number(used.texts),
        tokens: number(used.tokens),
        busy_ms: i64::try_from(used.took.as_millis()).unwrap_or(i64::MAX),
    }
}

/// What a line of a job used, as a row.
pub(super) fn job_row(owner: &JobOwner, model: &str, used: Used) -> UsageRow {
    UsageRow {
        key_id: owner.key_id.clone(),
        key_name: owner.key_name.clone(),
        user: owner.user.clone(),
        tenant: owner.tenant.clone(),
        ..row(None, model, used, Timestamp::now())
    }
}

pub(super) fn merge(gathered: &mut HashMap<String, UsageRow>, row: UsageRow) {
    let sum = gathered.entry(row.place()).or_insert_with(|| UsageRow { requests: 0, texts: 0, tokens: 0, busy_ms: 0, ..row.clone() });
    sum.requests += row.requests;
    sum.texts += row.texts;
    sum.tokens += row.tokens;
    sum.busy_ms += row.busy_ms;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Place;

    const USED: Used = Used { texts: 2, tokens: 7, took: Duration::from_millis(30) };

    #[test]
    fn days_and_models_are_apart_and_servers_add_up() {
        crate::store::tests::run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            let (here, there) = (Usage::new(store.clone()), Usage::new(store.clone()));
            here.note(None, "a", USED);
            here.note(None, "a", USED);
            here.note(None, "b", USED);
            there.note(None, "a", USED);
            there.flush().await;
            let old = row(None, "a", USED, "2020-02-29T23:59:59Z".parse().unwrap());
            store.add_usage(std::slice::from_ref(&old)).await.unwrap();
            let rows = here.rows(&UsageQuery::default()).await.unwrap();
            let short: Vec<_> = rows.iter().map(|row| (row.model.as_str(), row.requests, row.texts, row.tokens, row.busy_ms)).collect();
            assert_eq!(short, [("b", 1, 2, 7, 30), ("a", 3, 6, 21, 90), ("a", 1, 2, 7, 30)]);
            assert_eq!(rows[2], old);
            let some = |word: &str| Some(word.to_owned());
            for (query, count) in [
                (UsageQuery { model: some("a"), ..UsageQuery::default() }, 2),
                (UsageQuery { to: some("2020-02-29"), ..UsageQuery::default() }, 1),
                (UsageQuery { from: some("2020-03-01"), ..UsageQuery::default() }, 2),
                (UsageQuery { tenant: some("other"), ..UsageQuery::default() }, 0),
                (UsageQuery { user: some(NO_KEY), limit: Some(2), ..UsageQuery::default() }, 2),
                (UsageQuery { after: Some(rows[0].place()), ..UsageQuery::default() }, 2),
            ] {
                assert_eq!(here.rows(&query).await.unwrap().len(), count, "{query:?}");
            }
            let totals = here.totals(&UsageQuery { to: some("2020-02-29"), ..UsageQuery::default() }).await.unwrap();
            assert_eq!(totals, [UsageTotal { model: "a".to_owned(), requests: 1, texts: 2, tokens: 7 }]);
            let totals = here.totals(&UsageQuery::default()).await.unwrap();
            assert_eq!(totals.iter().map(|total| (total.model.as_str(), total.tokens)).collect::<Vec<_>>(), [("a", 28), ("b", 7)]);
        });
    }
}
