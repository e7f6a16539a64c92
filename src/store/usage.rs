//! Who used how much: one row per key, model and day, added to by every server.

use super::{Result, Store};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

/// What one key used of one model on one day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageRow {
    /// `2026-01-31`, UTC.
    pub day: String,
    pub key_id: String,
    pub model: String,
    pub key_name: String,
    pub user: String,
    pub tenant: String,
    pub requests: i64,
    pub texts: i64,
    pub tokens: i64,
    /// The time of all these requests together, in milliseconds.
    pub busy_ms: i64,
}

/// Which rows are asked for; an empty text or `None` leaves nothing out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageQuery {
    pub tenant: Option<String>,
    pub user: Option<String>,
    pub model: Option<String>,
    /// First and last day, both included.
    pub from: Option<String>,
    pub to: Option<String>,
    /// Only rows behind this one in the listing: its `place`.
    pub after: Option<String>,
    /// At most this many rows.
    pub limit: Option<usize>,
}

/// What was used of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageTotal {
    pub model: String,
    pub requests: i64,
    pub texts: i64,
    pub tokens: i64,
}

/// What `UsageQuery` asks for, with its words bound in their order.
const WHERE: &str = "WHERE ($1 = '' OR tenant = $1) AND ($2 = '' OR user_id = $2) AND ($3 = '' OR model = $3) AND ($4 = '' OR day >= $4) \
                     AND ($5 = '' OR day <= $5) AND ($6 = '' OR day || '|' || key_id || '|' || model < $6)";

impl UsageQuery {
    fn words(&self) -> [String; 6] {
        [&self.tenant, &self.user, &self.model, &self.from, &self.to, &self.after].map(|word| word.clone().unwrap_or_default())
    }
}

impl UsageRow {
    /// Where it stands in the listing, which begins with the newest day.
    pub fn place(&self) -> String {
        format!("{}|{}|{}", self.day, self.key_id, self.model)
    }
}

impl Store {
    /// Adds to what was used; all rows or none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn add_usage(&self, rows: &[UsageRow]) -> Result<()> {
        let mut tx = self.write().await?;
        // In one order everywhere: two servers that add to the same rows then never wait for each other in a circle.
        let mut rows: Vec<&UsageRow> = rows.iter().collect();
        rows.sort_by_key(|row| row.place());
        for row in rows {
            add(&mut tx, row).await?;
        }
        Ok(tx.commit().await?)
    }

    /// The rows asked for, newest day first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>> {
        let select = format!(
            "SELECT day, key_id, model, key_name, user_id, tenant, requests, texts, tokens, busy_ms FROM usage {WHERE} \
             ORDER BY day || '|' || key_id || '|' || model DESC LIMIT $7"
        );
        let select = query.words().into_iter().fold(sqlx::query(self.sql_text(&select)), |select, word| select.bind(word));
        let limit = query.limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX);
        select.bind(limit).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Sums of the rows asked for, by model; `limit` does not count.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn usage_totals(&self, query: &UsageQuery) -> Result<Vec<UsageTotal>> {
        // PostgreSQL sums BIGINT into NUMERIC, which is no type of both databases.
        let sum = |name: &str| format!("CAST(SUM({name}) AS BIGINT)");
        let select =
            format!("SELECT model, {}, {}, {} FROM usage {WHERE} GROUP BY model ORDER BY model", sum("requests"), sum("texts"), sum("tokens"));
        let select = query.words().into_iter().fold(sqlx::query(self.sql_text(&select)), |select, word| select.bind(word));
        let total =
            |row: &AnyRow| Ok(UsageTotal { model: row.try_get(0)?, requests: row.try_get(1)?, texts: row.try_get(2)?, tokens: row.try_get(3)? });
        select.fetch_all(&self.pool).await?.iter().map(total).collect()
    }
}

/// Adds to one row within a transaction.
pub(super) async fn add(tx: &mut Transaction<'static, Any>, row: &UsageRow) -> Result<()> {
    let upsert = "INSERT INTO usage (day, key_id, model, key_name, user_id, tenant, requests, texts, tokens, busy_ms) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (day, key_id, model) DO UPDATE SET \
                  requests = usage.requests + excluded.requests, texts = usage.texts + excluded.texts, \
                  tokens = usage.tokens + excluded.tokens, busy_ms = usage.busy_ms + excluded.busy_ms";
    let query = sqlx::query(upsert).bind(&row.day).bind(&row.key_id).bind(&row.model).bind(&row.key_name).bind(&row.user).bind(&row.tenant);
    query.bind(row.requests).bind(row.texts).bind(row.tokens).bind(row.busy_ms).execute(&mut **tx).await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<UsageRow> {
    Ok(UsageRow {
        day: row.try_get("day")?,
        key_id: row.try_get("key_id")?,
        model: row.try_get("model")?,
        key_name: row.try_get("key_name")?,
        user: row.try_get("user_id")?,
        tenant: row.try_get("tenant")?,
        requests: row.try_get("requests")?,
        texts: row.try_get("texts")?,
        tokens: row.try_get("tokens")?,
        busy_ms: row.try_get("busy_ms")?,
    })
}
