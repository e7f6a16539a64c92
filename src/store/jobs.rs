//! Batch jobs as they are kept: made, read, listed, cancelled. Their lines are worked off in `segments`.

use super::audit::Actor;
use super::{Result, Store, StoreError};
use crate::wire::batch::{FileFault, KEY_ENDED};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// `batch_...`.
    pub id: String,
    /// The surface it came by: `native` or `openai`.
    pub dialect: String,
    pub owner: JobOwner,
    /// The only url its lines may have; empty = any that is known.
    pub endpoint: String,
    /// `24h`, `4h`, `1h`.
    pub completion_window: String,
    /// A JSON object.
    pub metadata: Option<String>,
    /// How long its results are kept, if not as long as all.
    pub keep_ms: Option<i64>,
    pub input_file_id: String,
    /// Given from the start; there is a file once the job has ended and `output_bytes` is not 0.
    pub output_file_id: String,
    pub error_file_id: String,
    pub output_bytes: i64,
    pub error_bytes: i64,
    /// `validating`, `in_progress`, `cancelling`, `completed`, `failed`, `expired`, `cancelled`.
    pub status: String,
    /// Faults of the whole file: a JSON list.
    pub errors: Option<String>,
    pub total: i64,
    pub completed: i64,
    pub failed: i64,
    pub tokens: i64,
    pub times: JobTimes,
}

/// Whose job it is, as of its submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOwner {
    pub key_id: String,
    pub key_name: String,
    pub user: String,
    pub tenant: String,
    /// Slugs it may use; `None` = all.
    pub models: Option<Vec<String>>,
    /// Its place and part in the device's queue.
    pub client: u64,
    pub weight: u32,
}

/// Unix times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobTimes {
    pub created_ms: i64,
    pub expires_ms: i64,
    pub in_progress_ms: Option<i64>,
    pub finalizing_ms: Option<i64>,
    pub cancelling_ms: Option<i64>,
    pub ended_ms: Option<i64>,
}

impl Store {
    /// Keeps a new job, which begins in `validating`; `window_ms` counts from now. False if its input file is gone.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn insert_job(&self, job: &JobRow, window_ms: i64, actor: &Actor) -> Result<bool> {
        let insert = "INSERT INTO jobs (id, dialect, key_id, key_name, user_id, tenant, models, client, weight, endpoint, completion_window, metadata, \
                      input_file_id, output_file_id, error_file_id, output_bytes, error_bytes, status, total, completed, failed, void, tokens, owner, \
                      lease_until, created_at, expires_at, keep_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
                      0, 0, 'validating', 0, 0, 0, 0, 0, '', 0, {now}, {now} + $16, $17)";
        let owner = &job.owner;
        let models = owner.models.as_ref().map(|models| serde_json::Value::from(models.as_slice()).to_string());
        let mut tx = self.write().await?;
        let select = self.sql("SELECT id FROM files WHERE id = $1 AND ready = 1 {hold}");
        if sqlx::query(select).bind(&job.input_file_id).fetch_optional(&mut *tx).await?.is_none() {
            return Ok(false);
        }
        let query = sqlx::query(self.sql(insert)).bind(&job.id).bind(&job.dialect).bind(&owner.key_id).bind(&owner.key_name).bind(&owner.user);
        let query = query.bind(&owner.tenant).bind(models).bind(owner.client.cast_signed()).bind(i64::from(owner.weight)).bind(&job.endpoint);
        let query = query.bind(&job.completion_window).bind(&job.metadata).bind(&job.input_file_id).bind(&job.output_file_id);
        query.bind(&job.error_file_id).bind(window_ms).bind(job.keep_ms).execute(&mut *tx).await?;
        self.note(&mut tx, actor, "job.create", &job.id).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// A job of this user.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn job(&self, id: &str, tenant: &str, user: &str) -> Result<Option<JobRow>> {
        let select = "SELECT * FROM jobs WHERE id = $1 AND tenant = $2 AND user_id = $3";
        sqlx::query(select).bind(id).bind(tenant).bind(user).fetch_optional(&self.pool).await?.as_ref().map(read_job).transpose()
    }

    /// A job, whoever's it is.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn any_job(&self, id: &str) -> Result<Option<JobRow>> {
        sqlx::query("SELECT * FROM jobs WHERE id = $1").bind(id).fetch_optional(&self.pool).await?.as_ref().map(read_job).transpose()
    }

    /// Jobs of this user, newest first, behind the job `after`; `status` '' = any.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn jobs(&self, tenant: &str, user: &str, status: &str, after: &str, limit: usize) -> Result<Vec<JobRow>> {
        let select = "SELECT * FROM jobs WHERE tenant = $1 AND user_id = $2 AND ($3 = '' OR status = $3) AND ($4 = '' OR id < $4) \
                      ORDER BY id DESC LIMIT $5";
        let query = sqlx::query(select).bind(tenant).bind(user).bind(status).bind(after).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query.fetch_all(&self.pool).await?.iter().map(read_job).collect()
    }

    /// Asks a job to end: its remaining lines are given up by whoever works on it. A job that has ended, or is ending, stays as it is.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn cancel_job(&self, id: &str, tenant: &str, user: &str, actor: &Actor) -> Result<()> {
        let mut tx = self.write().await?;
        // Nothing has been begun of a job that is still validated: it ends at once.
        let whole = "UPDATE jobs SET status = 'cancelled', cancelling_at = {now}, ended_at = {now}, owner = '' \
                     WHERE id = $1 AND tenant = $2 AND user_id = $3 AND status = 'validating'";
        let rest = "UPDATE jobs SET status = 'cancelling', cancelling_at = {now} WHERE id = $1 AND tenant = $2 AND user_id = $3 \
                    AND status = 'in_progress'";
        let mut changed = 0;
        for update in [whole, rest] {
            changed += sqlx::query(self.sql(update)).bind(id).bind(tenant).bind(user).execute(&mut *tx).await?.rows_affected();
        }
        if changed > 0 {
            self.note(&mut tx, actor, "job.cancel", id).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Keys that have jobs under way, and whether the store has them in force; `None` = a key that was never in the store.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn keys_at_work(&self) -> Result<Vec<(String, Option<bool>)>> {
        let select = "SELECT DISTINCT jobs.key_id, CAST(CASE WHEN k.id IS NULL THEN 2 WHEN k.revoked_at IS NOT NULL OR k.expires_at <= {now} THEN 0 \
                      ELSE 1 END AS BIGINT) FROM jobs LEFT JOIN api_keys k ON k.id = jobs.key_id WHERE jobs.status IN ('validating', 'in_progress')";
        let read = |row: &AnyRow| Ok((row.try_get(0)?, [Some(false), Some(true)].get(row.try_get::<i64, _>(1)? as usize).copied().flatten()));
        sqlx::query(self.sql(select)).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Ends the jobs of a key that is no longer in force: what is done of them stays.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn end_jobs_of(&self, key_id: &str) -> Result<()> {
        let mut tx = self.write().await?;
        self.end_jobs(&mut tx, key_id).await?;
        Ok(tx.commit().await?)
    }

    /// The same within the transaction that ends the key.
    pub(super) async fn end_jobs(&self, tx: &mut Transaction<'static, Any>, key_id: &str) -> Result<()> {
        let errors = fault(KEY_ENDED);
        for update in [
            "UPDATE jobs SET status = 'failed', errors = $2, ended_at = {now}, owner = '' WHERE key_id = $1 AND status = 'validating'",
            "UPDATE jobs SET status = 'cancelling', errors = $2, cancelling_at = {now} WHERE key_id = $1 AND status = 'in_progress'",
        ] {
            sqlx::query(self.sql(update)).bind(key_id).bind(&errors).execute(&mut **tx).await?;
        }
        Ok(())
    }
}

/// The `errors` of a job that ended for one reason.
pub(super) fn fault((code, message): (&str, &str)) -> String {
    let fault = FileFault { code: code.to_owned(), message: message.to_owned(), line: None, param: None };
    // Strings and numbers only: this serialisation has no way to fail.
    serde_json::to_string(&[fault]).unwrap_or_default()
}

pub(super) fn read_job(row: &AnyRow) -> Result<JobRow> {
    let models: Option<String> = row.try_get("models")?;
    let models = models.map(|text| serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what: "models of a job", value: text }));
    let weight: i64 = row.try_get("weight")?;
    let owner = JobOwner {
        key_id: row.try_get("key_id")?,
        key_name: row.try_get("key_name")?,
        user: row.try_get("user_id")?,
        tenant: row.try_get("tenant")?,
        models: models.transpose()?,
        client: row.try_get::<i64, _>("client")?.cast_unsigned(),
        weight: u32::try_from(weight).map_err(|_| StoreError::Corrupt { what: "a weight", value: weight.to_string() })?,
    };
    let times = JobTimes {
        created_ms: row.try_get("created_at")?,
        expires_ms: row.try_get("expires_at")?,
        in_progress_ms: row.try_get("in_progress_at")?,
        finalizing_ms: row.try_get("finalizing_at")?,
        cancelling_ms: row.try_get("cancelling_at")?,
        ended_ms: row.try_get("ended_at")?,
    };
    Ok(JobRow {
        id: row.try_get("id")?,
        dialect: row.try_get("dialect")?,
        owner,
        endpoint: row.try_get("endpoint")?,
        completion_window: row.try_get("completion_window")?,
        metadata: row.try_get("metadata")?,
        keep_ms: row.try_get("keep_ms")?,
        input_file_id: row.try_get("input_file_id")?,
        output_file_id: row.try_get("output_file_id")?,
        error_file_id: row.try_get("error_file_id")?,
        output_bytes: row.try_get("output_bytes")?,
        error_bytes: row.try_get("error_bytes")?,
        status: row.try_get("status")?,
        errors: row.try_get("errors")?,
        total: row.try_get("total")?,
        completed: row.try_get("completed")?,
        failed: row.try_get("failed")?,
        tokens: row.try_get("tokens")?,
        times,
    })
}
