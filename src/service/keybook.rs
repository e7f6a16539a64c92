//! Keys that the server itself keeps: made, listed and revoked while it runs, here and on every server of the same store.

use super::access::{Access, Key, MODELS_LIST, MODELS_USE, Origin, SCOPES};
use super::keyfile::{from_hex, sha256_hex};
use super::stored;
use super::usage::NO_KEY;
use crate::store::audit::Actor;
use crate::store::keys::KeyRow;
use crate::store::{self, Store, StoreError};
use crate::wire::{Detail, Fault, echo};
use jiff::Timestamp;
use rand::distr::{Alphanumeric, SampleString};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Characters of a key after `sgk_`: about 238 bits.
const KEY_CHARS: usize = 40;
/// Characters of a key that are kept, to recognise it by.
const PREFIX_CHARS: usize = 8;
/// Keys in force at once. Each is compared with every token that comes.
const MAX_KEYS: usize = 10_000;
/// How often a server asks the store whether keys have changed: a key revoked elsewhere is refused here well within a second.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    pub name: String,
    pub user: String,
    pub tenant: String,
    pub partner: Option<String>,
    pub models: Option<Vec<String>>,
    /// `None` = `models:use` and `models:list`.
    pub scopes: Option<Vec<String>>,
    pub expires_at: Option<Timestamp>,
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub weight: u32,
}

impl NewKey {
    /// Cuts a key that `maker` makes to what `maker` has itself: nobody gives away more.
    ///
    /// # Errors
    /// `Validation` with every field that asks for more.
    pub fn within(mut self, maker: &Key) -> Result<Self, Fault> {
        let mut faults = Vec::new();
        let own = |scope: &&str| maker.has_scope(scope);
        match &self.scopes {
            Some(scopes) => {
                if let Some(scope) = scopes.iter().find(|scope| !maker.has_scope(scope)) {
                    faults.push(Detail::new("scopes", format!("{:?} is not among the scopes of the key that makes this one", echo(scope))));
                }
            }
            None => self.scopes = Some([MODELS_USE, MODELS_LIST].iter().filter(|scope| own(scope)).map(|scope| (*scope).to_owned()).collect()),
        }
        if self.scopes.as_ref().is_some_and(Vec::is_empty) {
            faults.push(Detail::new("scopes", "must name at least one scope"));
        }
        if let Some(allowed) = &maker.models {
            let models = self.models.get_or_insert_with(|| allowed.clone());
            if let Some(model) = models.iter().find(|model| !allowed.contains(model)) {
                faults.push(Detail::new("models", format!("{:?} is not among the models of the key that makes this one", echo(model))));
            }
        }
        let end = |end: Timestamp| self.expires_at.is_none_or(|own| own > end);
        if let Some(ceiling) = maker.expires_at.filter(|ceiling| end(*ceiling)) {
            self.expires_at = Some(ceiling);
        }
        let ceiling = |own: Option<u32>, most: Option<u32>| most.map_or(own, |most| Some(own.unwrap_or(most).min(most)));
        self.requests_per_minute = ceiling(self.requests_per_minute, maker.requests_per_minute);
        self.tokens_per_minute = ceiling(self.tokens_per_minute, maker.tokens_per_minute);
        self.weight = self.weight.min(maker.weight);
        self.partner.clone_from(&maker.partner);
        if faults.is_empty() { Ok(self) } else { Err(Fault::Validation(faults)) }
    }
}

/// A new key's text: shown once, kept nowhere.
pub fn draw() -> String {
    // The thread-local generator is seeded by the operating system and cryptographically strong.
    format!("sgk_{}", Alphanumeric.sample_string(&mut rand::rng(), KEY_CHARS))
}

/// The keys of one store.
pub struct KeyBook {
    store: Store,
    access: Arc<Access>,
    /// True if the operator serves everyone whatever keys there are.
    stays_open: bool,
    /// The store's number when its keys were last put in force. Held while they are read: an older reading never comes in force after a newer one.
    seen: Mutex<Option<String>>,
}

impl KeyBook {
    /// Puts the store's keys in force. A server that asks for no keys asks for them once the store has one, unless it `stays_open`.
    ///
    /// # Errors
    /// If the store fails or holds what cannot be read.
    pub async fn open(store: Store, access: Arc<Access>, stays_open: bool) -> store::Result<Self> {
        let book = Self { store, access, stays_open, seen: Mutex::new(None) };
        book.refresh().await?;
        Ok(book)
    }

    /// Makes a key; gives it and its text.
    ///
    /// # Errors
    /// `Validation` on `scopes` if one is unknown; `Conflict` if there are too many; if the store fails.
    pub async fn create(&self, new: NewKey, actor: &Actor) -> Result<(Key, String), Fault> {
        if self.access.list().len() >= MAX_KEYS {
            return Err(Fault::Conflict { message: format!("There are {MAX_KEYS} keys, the most there may be; revoke one first").into() });
        }
        let text = draw();
        let key = row(new, &text)?;
        stored(self.store.insert_key(&key, actor).await)?;
        stored(self.refresh().await)?;
        Ok((stored(key_of(key))?, text))
    }

    /// Ends a key of `tenant` (`None` = of any). From the moment this returns it is refused here, and elsewhere after `WATCH_INTERVAL`.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a key of the keys file.
    pub async fn revoke(&self, id: &str, tenant: Option<&str>, actor: &Actor) -> Result<(), Fault> {
        let in_file = |key: &Arc<Key>| key.id == id && key.origin == Origin::File && tenant.is_none_or(|tenant| tenant == key.tenant);
        if self.access.list().iter().any(in_file) {
            return Err(Fault::Conflict { message: "This key lives in the server's keys file, which only its operator changes".into() });
        }
        if !stored(self.store.revoke_key(id, tenant, actor).await)? {
            return Err(Fault::NotFound { message: "No API key has this id".into() });
        }
        stored(self.refresh().await)
    }

    /// Keys of a tenant (`None` = of all), those of the file first.
    pub fn list(&self, tenant: Option<&str>) -> Vec<Arc<Key>> {
        let mut keys = self.access.list();
        keys.retain(|key| tenant.is_none_or(|tenant| key.tenant == tenant));
        keys
    }

    /// Reads the store's keys if they have changed.
    async fn refresh(&self) -> store::Result<()> {
        let mut seen = self.seen.lock().await;
        let version = self.store.keys_version().await?;
        if seen.as_ref() == Some(&version) {
            return Ok(());
        }
        // The number is read first: a change in between is then read twice, never missed.
        let keys = self.store.keys().await?.into_iter().map(key_of).collect::<store::Result<Vec<_>>>()?;
        if !self.stays_open && !keys.is_empty() {
            self.access.close();
        }
        self.access.replace_stored(keys);
        *seen = Some(version);
        Ok(())
    }

    /// Ends the jobs of keys that have expired or are gone from the keys file; revoking a key ends its jobs at once.
    async fn end_jobs(&self) -> store::Result<()> {
        if self.access.open() {
            return Ok(());
        }
        for (id, stored) in self.store.keys_at_work().await? {
            // A key that no store knows is one of a file; of other servers' files nothing is known here.
            let in_force = stored.or_else(|| self.access.file_holds(&id)).unwrap_or(self.store.shared());
            if !in_force && id != NO_KEY {
                tracing::info!(event = "jobs_ended", key = id, "the key of these jobs is no longer in force");
                self.store.end_jobs_of(&id).await?;
            }
        }
        Ok(())
    }

    async fn follow(&self) -> store::Result<()> {
        self.refresh().await?;
        self.end_jobs().await
    }

    /// Follows changes that others make, for ever.
    pub async fn watch(&self) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.follow().await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "keys cannot be read; those known stay in force");
                }
                Err(_) => {}
            }
        }
    }
}

fn row(new: NewKey, text: &str) -> Result<KeyRow, Fault> {
    let scopes = new.scopes.unwrap_or_else(|| vec![MODELS_USE.to_owned(), MODELS_LIST.to_owned()]);
    if let Some(scope) = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(Fault::field("scopes", format!("{:?} is not one of {}", echo(scope), SCOPES.join(", "))));
    }
    Ok(KeyRow {
        id: format!("apikey_{}", uuid::Uuid::now_v7().simple()),
        name: new.name,
        sha256: sha256_hex(text),
        prefix: text.chars().take(PREFIX_CHARS).collect(),
        user: new.user,
        tenant: new.tenant,
        partner: new.partner,
        models: new.models,
        scopes,
        requests_per_minute: new.requests_per_minute,
        tokens_per_minute: new.tokens_per_minute,
        weight: new.weight.max(1),
        created_ms: Timestamp::now().as_millisecond(),
        expires_ms: new.expires_at.map(Timestamp::as_millisecond),
    })
}

fn key_of(row: KeyRow) -> store::Result<Key> {
    let time = |ms: i64| Timestamp::from_millisecond(ms).map_err(|_| StoreError::Corrupt { what: "a time", value: ms.to_string() });
    let sha256 = from_hex(&row.sha256).ok_or(StoreError::Corrupt { what: "the hash of a key", value: row.id.clone() })?;
    Ok(Key {
        id: row.id,
        name: row.name,
        user: row.user,
        tenant: row.tenant,
        partner: row.partner,
        models: row.models,
        scopes: row.scopes,
        expires_at: row.expires_ms.map(time).transpose()?,
        sha256,
        requests_per_minute: row.requests_per_minute,
        tokens_per_minute: row.tokens_per_minute,
        weight: row.weight,
        origin: Origin::Store { prefix: row.prefix, created_at: time(row.created_ms)? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Place;

    pub(super) fn new_key(name: &str) -> NewKey {
        NewKey {
            name: name.to_owned(),
            user: "u".to_owned(),
            tenant: "t".to_owned(),
            partner: None,
            models: None,
            scopes: None,
            expires_at: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            weight: 1,
        }
    }

    fn actor() -> Actor {
        Actor { id: "cli".to_owned(), tenant: "t".to_owned() }
    }

    async fn book(store: &Store) -> (Arc<Access>, KeyBook) {
        let access = Arc::new(Access::keys(Vec::new()));
        let book = KeyBook::open(store.clone(), access.clone(), false).await.unwrap();
        (access, book)
    }

    #[test]
    fn a_key_made_or_revoked_on_one_server_is_so_on_the_other() {
        crate::store::tests::run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            let ((here, book), (there, other)) = (book(&store).await, book(&store).await);
            let (key, text) = book.create(new_key("a"), &actor()).await.unwrap();
            assert!(text.len() == 44 && here.authenticate(&text).is_some() && there.authenticate(&text).is_none());
            other.refresh().await.unwrap();
            assert_eq!(there.authenticate(&text).unwrap().id, key.id);
            book.revoke(&key.id, Some("t"), &actor()).await.unwrap();
            assert!(here.authenticate(&text).is_none() && there.authenticate(&text).is_some());
            other.refresh().await.unwrap();
            assert!(there.authenticate(&text).is_none());
            assert!(matches!(book.revoke(&key.id, None, &actor()).await, Err(Fault::NotFound { .. })));
            let wrong = NewKey { scopes: Some(vec!["models:fly".to_owned()]), ..new_key("b") };
            assert!(matches!(book.create(wrong, &actor()).await, Err(Fault::Validation(_))));
            here.replace(vec![key; MAX_KEYS]);
            assert!(matches!(book.create(new_key("c"), &actor()).await, Err(Fault::Conflict { .. })));
        });
    }

    #[test]
    fn an_open_server_closes_with_its_stores_first_key_and_stays_closed() {
        crate::store::tests::run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            let (closing, open) = (Arc::new(Access::open_to_all()), Arc::new(Access::open_to_all()));
            let book = KeyBook::open(store.clone(), closing.clone(), false).await.unwrap();
            let other = KeyBook::open(store.clone(), open.clone(), true).await.unwrap();
            assert!(closing.open());
            let key = book.create(new_key("a"), &actor()).await.unwrap().0;
            assert!(!closing.open());
            book.revoke(&key.id, None, &actor()).await.unwrap();
            other.refresh().await.unwrap();
            assert!(!closing.open() && open.open());
        });
    }

    #[test]
    fn jobs_end_with_keys_that_leave_the_file_and_with_those_that_expire() {
        use crate::service::jobs::{Jobs, NewJob};
        use crate::wire::batch::{Source, WINDOWS};
        crate::store::tests::run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            let (access, book) = book(&store).await;
            let jobs = Jobs::open(store.clone(), crate::service::jobs::Options::default()).await.unwrap();
            let stored = book.create(new_key("stored"), &actor()).await.unwrap().0;
            let soon = Some(Timestamp::now() + Duration::from_millis(1));
            let short = book.create(NewKey { expires_at: soon, ..new_key("short") }, &actor()).await.unwrap().0;
            let file = Key { id: "apikey_file".to_owned(), sha256: [7; 32], origin: Origin::File, ..stored.clone() };
            let other = Key { id: "apikey_other".to_owned(), sha256: [8; 32], ..file.clone() };
            access.replace(vec![file.clone(), other.clone()]);
            let submit = |key: &Key| {
                let owner = crate::store::jobs::JobOwner {
                    key_id: key.id.clone(),
                    key_name: key.name.clone(),
                    user: "u".to_owned(),
                    tenant: "t".to_owned(),
                    models: None,
                    client: 1,
                    weight: 1,
                };
                let source = Source::Inline(b"{}".to_vec());
                NewJob { dialect: "native", owner, source, endpoint: String::new(), window: WINDOWS[0], metadata: None, keep: None }
            };
            let mut made = Vec::new();
            let default = Key { id: NO_KEY.to_owned(), ..file.clone() };
            for key in [&stored, &short, &file, &other, &default] {
                made.push(jobs.submit(submit(key), &actor()).await.unwrap().id);
            }
            access.replace(vec![other]);
            while access.holds(&short) {
                tokio::task::yield_now().await;
            }
            book.end_jobs().await.unwrap();
            let mut states = Vec::new();
            for id in &made {
                states.push(jobs.get(id, "t", "u").await.unwrap().status);
            }
            assert_eq!(states, ["validating", "failed", "failed", "validating", "validating"]);
            book.revoke(&stored.id, None, &actor()).await.unwrap();
            assert_eq!(jobs.get(&made[0], "t", "u").await.unwrap().status, "failed", "at once");
        });
    }

    #[test]
    fn nobody_gives_away_more_than_it_has() {
        crate::store::tests::run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            let (_, book) = book(&store).await;
            let end: Timestamp = "2999-01-01T00:00:00Z".parse().unwrap();
            let maker = NewKey {
                models: Some(vec!["m".to_owned()]),
                scopes: Some(vec![MODELS_USE.to_owned()]),
                expires_at: Some(end),
                requests_per_minute: Some(5),
                ..new_key("maker")
            };
            let maker = book.create(maker, &actor()).await.unwrap().0;
            let cut = NewKey { requests_per_minute: Some(9), weight: 7, ..new_key("x") }.within(&maker).unwrap();
            assert_eq!((cut.models, cut.scopes), (Some(vec!["m".to_owned()]), Some(vec![MODELS_USE.to_owned()])));
            assert_eq!((cut.expires_at, cut.requests_per_minute, cut.weight), (Some(end), Some(5), 1));
            let more = NewKey { scopes: Some(vec![MODELS_LIST.to_owned()]), models: Some(vec!["n".to_owned()]), ..new_key("x") };
            let Err(Fault::Validation(faults)) = more.within(&maker) else { panic!("accepted") };
            assert_eq!(faults.iter().map(|fault| fault.field.as_ref()).collect::<Vec<_>>(), ["scopes", "models"]);
        });
    }
}
