//! Who changed what and when: kept in the store and told to the log. Never a text, never a key.

use super::{Result, Store};
use sqlx::{Any, Row, Transaction};

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The key's id, or `cli`.
    pub id: String,
    pub tenant: String,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Unix time in milliseconds.
    pub at_ms: i64,
    pub actor: String,
    pub tenant: String,
    /// `key.create`, `key.revoke`, ...
    pub action: String,
    /// The id of what was changed.
    pub subject: String,
}

impl Store {
    /// Notes a change in the transaction that makes it: both happen or neither.
    pub(super) async fn note(&self, tx: &mut Transaction<'static, Any>, actor: &Actor, action: &'static str, subject: &str) -> Result<()> {
        let insert = "INSERT INTO audit (id, at, actor, tenant, action, subject) VALUES ($1, {now}, $2, $3, $4, $5)";
        let id = format!("audit_{}", uuid::Uuid::now_v7().simple());
        let query = sqlx::query(self.sql(insert)).bind(id).bind(&actor.id).bind(&actor.tenant).bind(action).bind(subject);
        query.execute(&mut **tx).await?;
        tracing::info!(event = "audit", actor = actor.id, tenant_id = actor.tenant, action, subject);
        Ok(())
    }

    /// All changes, oldest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn audit(&self) -> Result<Vec<Entry>> {
        let rows = sqlx::query("SELECT at, actor, tenant, action, subject FROM audit ORDER BY id").fetch_all(&self.pool).await?;
        let entry = |row: sqlx::any::AnyRow| -> Result<Entry> {
            let (at_ms, actor, tenant) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(Entry { at_ms, actor, tenant, action: row.try_get(3)?, subject: row.try_get(4)? })
        };
        rows.into_iter().map(entry).collect()
    }
}
