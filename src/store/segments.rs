//! The work of batch jobs: who does which lines, what of it is written down, and the end. Every step is one transaction.

use super::files::{self, CHUNK_BYTES, Chunk, FileRow};
use super::jobs::{JobRow, fault, read_job};
use super::usage::{self, UsageRow};
use super::{Result, Store};
use crate::wire::batch::EXPIRED;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

/// How long a server that says nothing keeps what it works on.
pub const LEASE_MS: i64 = 10_000;

/// A run of lines of a job's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub seq: i64,
    /// From 0.
    pub first_line: i64,
    /// Bytes of the input file.
    pub start_byte: i64,
    pub end_byte: i64,
}

/// A segment that this server works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub job: JobRow,
    pub seq: i64,
    /// Where to go on.
    pub next_line: i64,
    pub next_byte: i64,
    pub end_byte: i64,
    /// How many times something was written down of it.
    pub part: i64,
    /// What becomes of its lines.
    pub fate: Fate,
    /// Until the window closes, by the store's clock, in milliseconds.
    pub left_ms: i64,
}

/// What becomes of a job's remaining lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Run,
    Cancel,
    Expire,
    /// Its key is no longer in force.
    Stop,
}

/// How jobs end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// How long the results are kept of a job that does not say it.
    pub keep_ms: i64,
    /// True if a job whose window has closed is called `failed`.
    pub expired_is_failed: bool,
}

/// What was done of a segment since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub output: Vec<u8>,
    pub errors: Vec<u8>,
    pub completed: i64,
    pub failed: i64,
    /// Of the failed ones, those given up.
    pub void: i64,
    pub tokens: i64,
    pub next_line: i64,
    pub next_byte: i64,
    pub usage: Vec<UsageRow>,
}

impl Store {
    /// Takes a job whose input is to be looked through.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn claim_validation(&self, owner: &str) -> Result<Option<JobRow>> {
        let select = "SELECT s.* FROM jobs s WHERE s.status = 'validating' AND (s.owner = '' OR s.owner = $1 OR s.lease_until < {now}) \
                      ORDER BY s.expires_at, s.id LIMIT 1 {lock}";
        let mut tx = self.write().await?;
        let Some(row) = sqlx::query(self.sql(select)).bind(owner).fetch_optional(&mut *tx).await? else { return Ok(None) };
        let job = read_job(&row)?;
        let update = "UPDATE jobs SET owner = $2, lease_until = {now} + $3 WHERE id = $1";
        sqlx::query(self.sql(update)).bind(&job.id).bind(owner).bind(LEASE_MS).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Some(job))
    }

    /// Lets a job run whose input is fine; false if it is no longer this server's to decide.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn start_job(&self, id: &str, owner: &str, total: i64, segments: &[Segment]) -> Result<bool> {
        let mut tx = self.write().await?;
        let update = "UPDATE jobs SET status = 'in_progress', in_progress_at = {now}, total = $3, owner = '' \
                      WHERE id = $1 AND owner = $2 AND status = 'validating'";
        if sqlx::query(self.sql(update)).bind(id).bind(owner).bind(total).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let insert = "INSERT INTO segments (job_id, seq, first_line, start_byte, end_byte, next_line, next_byte, part, done, owner, lease_until) \
                      VALUES ($1, $2, $3, $4, $5, $3, $4, 0, 0, '', 0)";
        for Segment { seq, first_line, start_byte, end_byte } in segments {
            sqlx::query(insert).bind(id).bind(seq).bind(first_line).bind(start_byte).bind(end_byte).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Ends a job whose input cannot be worked on; `errors` is a JSON list.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn refuse_job(&self, id: &str, owner: &str, errors: &str) -> Result<()> {
        let update =
            "UPDATE jobs SET status = 'failed', ended_at = {now}, errors = $3, owner = '' WHERE id = $1 AND owner = $2 AND status = 'validating'";
        sqlx::query(self.sql(update)).bind(id).bind(owner).bind(errors).execute(&self.pool).await?;
        Ok(())
    }

    /// Takes a segment that nobody works on, or whose server has fallen silent; of the job whose window closes first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn claim_segment(&self, owner: &str) -> Result<Option<Claim>> {
        let select = "SELECT s.job_id, s.seq, s.next_line, s.next_byte, s.end_byte, s.part FROM segments s JOIN jobs j ON j.id = s.job_id \
                      WHERE s.done = 0 AND (s.owner = '' OR s.owner = $1 OR s.lease_until < {now}) AND j.status IN ('in_progress', 'cancelling') \
                      ORDER BY j.expires_at, s.job_id, s.seq LIMIT 1 {lock}";
        let mut tx = self.write().await?;
        let Some(row) = sqlx::query(self.sql(select)).bind(owner).fetch_optional(&mut *tx).await? else { return Ok(None) };
        let (id, seq): (String, i64) = (row.try_get("job_id")?, row.try_get("seq")?);
        let update = "UPDATE segments SET owner = $3, lease_until = {now} + $4 WHERE job_id = $1 AND seq = $2";
        sqlx::query(self.sql(update)).bind(&id).bind(seq).bind(owner).bind(LEASE_MS).execute(&mut *tx).await?;
        let select = "SELECT jobs.*, expires_at - {now} AS left_ms FROM jobs WHERE id = $1";
        let job = sqlx::query(self.sql(select)).bind(&id).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        claim(&row, &job).map(Some)
    }

    /// What becomes of a job's remaining lines, and the milliseconds until its window closes.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn fate(&self, id: &str) -> Result<(Fate, i64)> {
        let select = "SELECT status, errors, expires_at - {now} AS left_ms FROM jobs WHERE id = $1";
        fate(&sqlx::query(self.sql(select)).bind(id).fetch_one(&self.pool).await?)
    }

    /// Says that this server still works on what it has.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn renew(&self, owner: &str) -> Result<()> {
        for update in [
            "UPDATE segments SET lease_until = {now} + $2 WHERE owner = $1 AND done = 0",
            "UPDATE jobs SET lease_until = {now} + $2 WHERE owner = $1",
        ] {
            sqlx::query(self.sql(update)).bind(owner).bind(LEASE_MS).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Gives back what this server has not finished, for others to go on with.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn release(&self, owner: &str) -> Result<()> {
        for update in ["UPDATE segments SET owner = '' WHERE owner = $1 AND done = 0", "UPDATE jobs SET owner = '' WHERE owner = $1"] {
            sqlx::query(update).bind(owner).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Writes down what was done of a segment: result lines, counts and usage together or not at all. The last segment of a job ends the job.
    /// Gives the claim to go on with, `None` if the segment is done or no longer this server's.
    ///
    /// # Errors
    /// If the store fails, or the disk is full; then nothing was written.
    pub async fn advance(&self, claim: &Claim, owner: &str, progress: &Progress, ending: Ending) -> Result<Option<Claim>> {
        let mut tx = self.write().await?;
        let id = &claim.job.id;
        let done = progress.next_byte >= claim.end_byte;
        // The job's row first: it is the lock under which the counts and the question for the last segment are one.
        let update = "UPDATE jobs SET completed = completed + $2, failed = failed + $3, void = void + $4, tokens = tokens + $5, \
                      output_bytes = output_bytes + $6, error_bytes = error_bytes + $7 WHERE id = $1";
        let query = sqlx::query(update).bind(id).bind(progress.completed).bind(progress.failed).bind(progress.void).bind(progress.tokens);
        query.bind(progress.output.len() as i64).bind(progress.errors.len() as i64).execute(&mut *tx).await?;
        let update = "UPDATE segments SET next_line = $4, next_byte = $5, part = part + 1, done = $6, lease_until = {now} + $7 \
                      WHERE job_id = $1 AND seq = $2 AND owner = $3 AND part = $8 AND done = 0";
        let query = sqlx::query(self.sql(update)).bind(id).bind(claim.seq).bind(owner).bind(progress.next_line).bind(progress.next_byte);
        if query.bind(i64::from(done)).bind(LEASE_MS).bind(claim.part).execute(&mut *tx).await?.rows_affected() == 0 {
            // Another server has taken it over; what was done here is done there again, and written once.
            return Ok(None);
        }
        for (file, bytes) in [(&claim.job.output_file_id, &progress.output), (&claim.job.error_file_id, &progress.errors)] {
            write_part(&mut tx, file, claim, bytes).await?;
        }
        for row in &progress.usage {
            usage::add(&mut tx, row).await?;
        }
        if done {
            self.end_if_last(&mut tx, id, ending).await?;
        }
        let select = "SELECT jobs.*, expires_at - {now} AS left_ms FROM jobs WHERE id = $1";
        let row = sqlx::query(self.sql(select)).bind(id).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        if done {
            return Ok(None);
        }
        let (fate, left_ms) = fate(&row)?;
        Ok(Some(Claim { next_line: progress.next_line, next_byte: progress.next_byte, part: claim.part + 1, fate, left_ms, ..claim.clone() }))
    }

    /// Ends the job if nothing is left of it.
    async fn end_if_last(&self, tx: &mut Transaction<'static, Any>, id: &str, ending: Ending) -> Result<()> {
        let open: i64 =
            sqlx::query("SELECT COUNT(*) FROM segments WHERE job_id = $1 AND done = 0").bind(id).fetch_one(&mut **tx).await?.try_get(0)?;
        if open > 0 {
            return Ok(());
        }
        let update = "UPDATE jobs SET status = CASE WHEN status = 'cancelling' AND errors IS NOT NULL THEN 'failed' \
                      WHEN status = 'cancelling' THEN 'cancelled' WHEN void > 0 THEN $2 ELSE 'completed' END, \
                      errors = CASE WHEN status <> 'cancelling' AND void > 0 AND $2 = 'failed' THEN $3 ELSE errors END, \
                      finalizing_at = {now}, ended_at = {now} WHERE id = $1";
        let expired = if ending.expired_is_failed { "failed" } else { "expired" };
        sqlx::query(self.sql(update)).bind(id).bind(expired).bind(fault(EXPIRED)).execute(&mut **tx).await?;
        let row = sqlx::query("SELECT * FROM jobs WHERE id = $1").bind(id).fetch_one(&mut **tx).await?;
        let job = read_job(&row)?;
        let ended_ms = job.times.ended_ms.unwrap_or(job.times.created_ms);
        for (file, bytes, name) in [(&job.output_file_id, job.output_bytes, "output"), (&job.error_file_id, job.error_bytes, "error")] {
            if bytes > 0 {
                let file = FileRow {
                    id: file.clone(),
                    user: job.owner.user.clone(),
                    tenant: job.owner.tenant.clone(),
                    filename: format!("{id}_{name}.jsonl"),
                    purpose: "batch_output".to_owned(),
                    bytes,
                    created_ms: ended_ms,
                    expires_ms: Some(ended_ms + job.keep_ms.unwrap_or(ending.keep_ms)),
                };
                files::insert_file(tx, &file, true).await?;
            }
        }
        sqlx::query("DELETE FROM segments WHERE job_id = $1").bind(id).execute(&mut **tx).await?;
        Ok(())
    }
}

/// Adds to a result file, in chunks; the parts of a segment follow each other with room for the chunks of each.
async fn write_part(tx: &mut Transaction<'static, Any>, file: &str, claim: &Claim, bytes: &[u8]) -> Result<()> {
    const CHUNKS_PER_PART: i64 = 1 << 20;
    for (index, data) in bytes.chunks(CHUNK_BYTES).enumerate() {
        let chunk = Chunk { seq: claim.seq, part: claim.part * CHUNKS_PER_PART + index as i64, data: data.to_vec() };
        files::insert_chunk(tx, file, &chunk).await?;
    }
    Ok(())
}

fn claim(segment: &AnyRow, job: &AnyRow) -> Result<Claim> {
    let (fate, left_ms) = fate(job)?;
    Ok(Claim {
        job: read_job(job)?,
        seq: segment.try_get("seq")?,
        next_line: segment.try_get("next_line")?,
        next_byte: segment.try_get("next_byte")?,
        end_byte: segment.try_get("end_byte")?,
        part: segment.try_get("part")?,
        fate,
        left_ms,
    })
}

fn fate(job: &AnyRow) -> Result<(Fate, i64)> {
    let (status, left_ms): (String, i64) = (job.try_get("status")?, job.try_get("left_ms")?);
    let fate = if status == "cancelling" {
        let errors: Option<String> = job.try_get("errors")?;
        errors.map_or(Fate::Cancel, |_| Fate::Stop)
    } else if left_ms <= 0 {
        Fate::Expire
    } else {
        Fate::Run
    };
    Ok((fate, left_ms))
}

#[cfg(test)]
#[path = "segments_tests.rs"]
mod tests;
