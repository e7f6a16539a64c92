//! API keys in the store: only their hashes, and a number that every change raises, so that all servers notice it.

use super::audit::Actor;
use super::{Result, Store, StoreError};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// `apikey_...`.
    pub id: String,
    pub name: String,
    /// Hexadecimal SHA-256 of the whole key.
    pub sha256: String,
    /// The first characters of the key, to recognise it by.
    pub prefix: String,
    pub user: String,
    pub tenant: String,
    pub partner: Option<String>,
    /// `None` = all models.
    pub models: Option<Vec<String>>,
    pub scopes: Vec<String>,
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    /// Its part of the device relative to other keys.
    pub weight: u32,
    /// Unix times in milliseconds.
    pub created_ms: i64,
    pub expires_ms: Option<i64>,
}

const COLUMNS: &str = "SELECT id, name, sha256, prefix, user_id, tenant, partner, models, scopes, requests_per_minute, tokens_per_minute, weight, \
                       created_at, expires_at FROM api_keys WHERE revoked_at IS NULL ORDER BY id";

impl Store {
    /// Keeps a new key.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn insert_key(&self, key: &KeyRow, actor: &Actor) -> Result<()> {
        let insert = "INSERT INTO api_keys (id, name, sha256, prefix, user_id, tenant, partner, models, scopes, requests_per_minute, \
                      tokens_per_minute, weight, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
        let mut tx = self.write().await?;
        let query = sqlx::query(insert).bind(&key.id).bind(&key.name).bind(&key.sha256).bind(&key.prefix).bind(&key.user).bind(&key.tenant);
        let query = query.bind(&key.partner).bind(key.models.as_ref().map(|models| list(models))).bind(list(&key.scopes));
        let query = query.bind(key.requests_per_minute.map(i64::from)).bind(key.tokens_per_minute.map(i64::from));
        query.bind(i64::from(key.weight)).bind(key.created_ms).bind(key.expires_ms).execute(&mut *tx).await?;
        self.keys_changed(&mut tx).await?;
        self.note(&mut tx, actor, "key.create", &key.id).await?;
        Ok(tx.commit().await?)
    }

    /// Ends a key, and its jobs with it; false if there is none of this id in force (in `tenant`, if given).
    ///
    /// # Errors
    /// If the store fails.
    pub async fn revoke_key(&self, id: &str, tenant: Option<&str>, actor: &Actor) -> Result<bool> {
        let mut tx = self.write().await?;
        let update = "UPDATE api_keys SET revoked_at = {now} WHERE id = $1 AND revoked_at IS NULL AND ($2 = '' OR tenant = $2)";
        let done = sqlx::query(self.sql(update)).bind(id).bind(tenant.unwrap_or_default()).execute(&mut *tx).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.keys_changed(&mut tx).await?;
        self.end_jobs(&mut tx, id).await?;
        self.note(&mut tx, actor, "key.revoke", id).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Keys that are not revoked; expired ones are among them.
    ///
    /// # Errors
    /// If the store fails, or holds what cannot be read.
    pub async fn keys(&self) -> Result<Vec<KeyRow>> {
        sqlx::query(COLUMNS).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// True if there was ever a key, revoked ones included: a store that has had keys does not fall open when the last one ends.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn has_had_keys(&self) -> Result<bool> {
        Ok(sqlx::query("SELECT 1 FROM api_keys LIMIT 1").fetch_optional(&self.pool).await?.is_some())
    }

    /// Another number after every change of a key.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn keys_version(&self) -> Result<String> {
        let row = sqlx::query("SELECT value FROM settings WHERE name = 'keys_version'").fetch_one(&self.pool).await?;
        Ok(row.try_get(0)?)
    }

    async fn keys_changed(&self, tx: &mut Transaction<'static, Any>) -> Result<()> {
        let update = "UPDATE settings SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE name = 'keys_version'";
        sqlx::query(update).execute(&mut **tx).await?;
        Ok(())
    }
}

fn list(words: &[String]) -> String {
    serde_json::Value::from(words).to_string()
}

fn read_list(what: &'static str, text: String) -> Result<Vec<String>> {
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what, value: text })
}

fn read_u32(what: &'static str, value: i64) -> Result<u32> {
    u32::try_from(value).map_err(|_| StoreError::Corrupt { what, value: value.to_string() })
}

fn read(row: &AnyRow) -> Result<KeyRow> {
    let models: Option<String> = row.try_get("models")?;
    let limit = |column: &'static str| -> Result<Option<u32>> {
        let value: Option<i64> = row.try_get(column)?;
        value.map(|value| read_u32(column, value)).transpose()
    };
    Ok(KeyRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        sha256: row.try_get("sha256")?,
        prefix: row.try_get("prefix")?,
        user: row.try_get("user_id")?,
        tenant: row.try_get("tenant")?,
        partner: row.try_get("partner")?,
        models: models.map(|text| read_list("models of a key", text)).transpose()?,
        scopes: read_list("scopes of a key", row.try_get("scopes")?)?,
        requests_per_minute: limit("requests_per_minute")?,
        tokens_per_minute: limit("tokens_per_minute")?,
        weight: read_u32("a weight", row.try_get("weight")?)?,
        created_ms: row.try_get("created_at")?,
        expires_ms: row.try_get("expires_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;
    use crate::store::Place;

    fn row(id: &str, tenant: &str) -> KeyRow {
        KeyRow {
            id: id.to_owned(),
            name: "n".to_owned(),
            sha256: id.to_owned(),
            prefix: "sgk_ab".to_owned(),
            user: "u".to_owned(),
            tenant: tenant.to_owned(),
            partner: None,
            models: Some(vec!["a/b".to_owned(), "\"q\"".to_owned()]),
            scopes: vec!["models:use".to_owned()],
            requests_per_minute: Some(u32::MAX),
            tokens_per_minute: None,
            weight: 3,
            created_ms: 1,
            expires_ms: Some(2),
        }
    }

    fn cli() -> Actor {
        Actor { id: "cli".to_owned(), tenant: "t".to_owned() }
    }

    #[test]
    fn a_key_comes_back_as_it_was_until_it_is_revoked() {
        run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            assert!(!store.has_had_keys().await.unwrap());
            let (first, second) = (row("apikey_1", "t"), KeyRow { models: None, expires_ms: None, ..row("apikey_2", "t") });
            let mut versions = vec![store.keys_version().await.unwrap()];
            for key in [&first, &second] {
                store.insert_key(key, &cli()).await.unwrap();
                versions.push(store.keys_version().await.unwrap());
            }
            assert_eq!(store.keys().await.unwrap(), [first, second.clone()]);
            assert!(store.insert_key(&second, &cli()).await.is_err(), "an id is given once");
            assert!(!store.revoke_key("apikey_1", Some("other"), &cli()).await.unwrap(), "another tenant's");
            assert!(store.revoke_key("apikey_1", Some("t"), &cli()).await.unwrap());
            assert!(!store.revoke_key("apikey_1", None, &cli()).await.unwrap(), "once");
            versions.push(store.keys_version().await.unwrap());
            assert_eq!(store.keys().await.unwrap(), [second]);
            assert!(store.revoke_key("apikey_2", None, &cli()).await.unwrap() && store.has_had_keys().await.unwrap());
            versions.dedup();
            assert_eq!(versions.len(), 4, "every change has its number: {versions:?}");
            let audit = store.audit().await.unwrap();
            let actions: Vec<_> = audit.iter().map(|entry| (entry.action.as_str(), entry.subject.as_str(), entry.actor.as_str())).collect();
            assert_eq!(actions[..3], [("key.create", "apikey_1", "cli"), ("key.create", "apikey_2", "cli"), ("key.revoke", "apikey_1", "cli")]);
            assert!(audit.iter().all(|entry| entry.at_ms > 1_700_000_000_000));
        });
    }
}
