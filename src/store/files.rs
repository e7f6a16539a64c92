//! Files in the store, in chunks: written and read piece by piece, never whole in memory.

use super::audit::Actor;
use super::{Result, Store};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

/// Bytes of a chunk; see the schema.
pub const CHUNK_BYTES: usize = 256 << 10;

/// A file as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// `file-...`.
    pub id: String,
    pub user: String,
    pub tenant: String,
    pub filename: String,
    /// `batch`, `batch_output`.
    pub purpose: String,
    pub bytes: i64,
    pub created_ms: i64,
    pub expires_ms: Option<i64>,
}

/// A piece of a file: where it stands, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub seq: i64,
    pub part: i64,
    pub data: Vec<u8>,
}

/// What became of a file that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    Yes,
    /// There is none.
    Missing,
    /// A job that has not ended reads it.
    Read,
}

/// Files as they are listed: newest first or oldest first, behind the file `after`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileQuery {
    pub tenant: String,
    pub user: String,
    pub purpose: Option<String>,
    pub after: Option<String>,
    pub oldest_first: bool,
    pub limit: usize,
}

const COLUMNS: &str = "id, user_id, tenant, filename, purpose, bytes, created_at, expires_at";

impl Store {
    /// Begins a file, invisible until `finish_file`. `expires_ms` counts from the start.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn begin_file(&self, file: &FileRow) -> Result<()> {
        let mut tx = self.write().await?;
        insert_file(&mut tx, file, false).await?;
        Ok(tx.commit().await?)
    }

    /// Adds a chunk to a file that was begun.
    ///
    /// # Errors
    /// If the store fails, or the disk is full.
    pub async fn add_chunk(&self, file: &str, chunk: &Chunk) -> Result<()> {
        let mut tx = self.write().await?;
        insert_chunk(&mut tx, file, chunk).await?;
        Ok(tx.commit().await?)
    }

    /// Makes a file visible, with all that became known since it was begun.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn finish_file(&self, file: &FileRow, actor: &Actor) -> Result<()> {
        let mut tx = self.write().await?;
        let update = "UPDATE files SET ready = 1, bytes = $2, filename = $3, purpose = $4, expires_at = $5 WHERE id = $1";
        let query = sqlx::query(update).bind(&file.id).bind(file.bytes).bind(&file.filename).bind(&file.purpose).bind(file.expires_ms);
        query.execute(&mut *tx).await?;
        self.note(&mut tx, actor, "file.create", &file.id).await?;
        Ok(tx.commit().await?)
    }

    /// Removes a file that was begun and is not wanted.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn discard_file(&self, id: &str) -> Result<()> {
        let mut tx = self.write().await?;
        for delete in ["DELETE FROM file_chunks WHERE file_id = $1", "DELETE FROM files WHERE id = $1"] {
            sqlx::query(delete).bind(id).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    /// A finished file, if it belongs to this user and has not expired.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn file(&self, id: &str, tenant: &str, user: &str) -> Result<Option<FileRow>> {
        let select = "SELECT id, user_id, tenant, filename, purpose, bytes, created_at, expires_at FROM files WHERE id = $1 AND tenant = $2 \
                      AND user_id = $3 AND ready = 1 AND (expires_at IS NULL OR expires_at > {now})";
        let row = sqlx::query(self.sql(select)).bind(id).bind(tenant).bind(user).fetch_optional(&self.pool).await?;
        row.as_ref().map(read).transpose()
    }

    /// The files of a user.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn files(&self, query: &FileQuery) -> Result<Vec<FileRow>> {
        // Ids begin with the time: their order is that of creation.
        let (compare, order) = if query.oldest_first { (">", "ASC") } else { ("<", "DESC") };
        let select = format!(
            "SELECT {COLUMNS} FROM files WHERE tenant = $1 AND user_id = $2 AND ready = 1 AND (expires_at IS NULL OR expires_at > {{now}}) \
             AND ($3 = '' OR purpose = $3) AND ($4 = '' OR id {compare} $4) ORDER BY id {order} LIMIT $5"
        );
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        let select = sqlx::query(self.sql_text(&select)).bind(&query.tenant).bind(&query.user).bind(word(&query.purpose)).bind(word(&query.after));
        select.bind(i64::try_from(query.limit).unwrap_or(i64::MAX)).fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Removes a file of this user, unless a job that has not ended reads it.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn delete_file(&self, id: &str, tenant: &str, user: &str, actor: &Actor) -> Result<Deleted> {
        let mut tx = self.write().await?;
        // A job that is being submitted for it either has this row, or finds it gone.
        let select = "SELECT id FROM files WHERE id = $1 AND tenant = $2 AND user_id = $3 AND ready = 1 {hold}";
        if sqlx::query(self.sql(select)).bind(id).bind(tenant).bind(user).fetch_optional(&mut *tx).await?.is_none() {
            return Ok(Deleted::Missing);
        }
        let select = "SELECT id FROM jobs WHERE input_file_id = $1 AND status IN ('validating', 'in_progress', 'cancelling') LIMIT 1";
        if sqlx::query(select).bind(id).fetch_optional(&mut *tx).await?.is_some() {
            return Ok(Deleted::Read);
        }
        for delete in ["DELETE FROM files WHERE id = $1", "DELETE FROM file_chunks WHERE file_id = $1"] {
            sqlx::query(delete).bind(id).execute(&mut *tx).await?;
        }
        self.note(&mut tx, actor, "file.delete", id).await?;
        tx.commit().await?;
        Ok(Deleted::Yes)
    }

    /// Removes what has expired and no job reads any more, and uploads that were never finished; says how many.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn remove_expired_files(&self) -> Result<u64> {
        const UNFINISHED: &str = "SELECT id FROM files WHERE (expires_at <= {now} OR (ready = 0 AND created_at < {now} - 86400000)) AND NOT EXISTS \
             (SELECT 1 FROM jobs WHERE input_file_id = files.id AND status IN ('validating', 'in_progress', 'cancelling'))";
        let mut removed = 0;
        for row in sqlx::query(self.sql(UNFINISHED)).fetch_all(&self.pool).await? {
            let id: String = row.try_get(0)?;
            let mut tx = self.write().await?;
            sqlx::query("DELETE FROM file_chunks WHERE file_id = $1").bind(&id).execute(&mut *tx).await?;
            removed += sqlx::query("DELETE FROM files WHERE id = $1").bind(&id).execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
        }
        Ok(removed)
    }

    /// The chunk that follows `(seq, part)`; `(-1, 0)` stands before the first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn next_chunk(&self, file: &str, seq: i64, part: i64) -> Result<Option<Chunk>> {
        let select =
            "SELECT seq, part, data FROM file_chunks WHERE file_id = $1 AND (seq > $2 OR (seq = $2 AND part > $3)) ORDER BY seq, part LIMIT 1";
        let row = sqlx::query(select).bind(file).bind(seq).bind(part).fetch_optional(&self.pool).await?;
        row.map(|row| Ok(Chunk { seq: row.try_get(0)?, part: row.try_get(1)?, data: row.try_get(2)? })).transpose()
    }

    /// The bytes `start..end` of an uploaded file.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn file_range(&self, file: &str, start: i64, end: i64) -> Result<Vec<u8>> {
        let chunk = CHUNK_BYTES as i64;
        let select = "SELECT data FROM file_chunks WHERE file_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq";
        let (first, behind) = (start / chunk, (end + chunk - 1) / chunk);
        let mut bytes = Vec::new();
        for row in sqlx::query(select).bind(file).bind(first).bind(behind).fetch_all(&self.pool).await? {
            bytes.extend_from_slice(&row.try_get::<Vec<u8>, _>(0)?);
        }
        let skip = usize::try_from(start - first * chunk).unwrap_or(0).min(bytes.len());
        bytes.drain(..skip);
        bytes.truncate(usize::try_from(end - start).unwrap_or(0));
        Ok(bytes)
    }
}

/// Adds a file within a transaction.
pub(super) async fn insert_file(tx: &mut Transaction<'static, Any>, file: &FileRow, ready: bool) -> Result<()> {
    let insert = "INSERT INTO files (id, user_id, tenant, filename, purpose, bytes, created_at, expires_at, ready) \
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let query = sqlx::query(insert).bind(&file.id).bind(&file.user).bind(&file.tenant).bind(&file.filename).bind(&file.purpose).bind(file.bytes);
    query.bind(file.created_ms).bind(file.expires_ms).bind(i64::from(ready)).execute(&mut **tx).await?;
    Ok(())
}

/// Adds a chunk within a transaction.
pub(super) async fn insert_chunk(tx: &mut Transaction<'static, Any>, file: &str, chunk: &Chunk) -> Result<()> {
    let insert = "INSERT INTO file_chunks (file_id, seq, part, data) VALUES ($1, $2, $3, $4)";
    sqlx::query(insert).bind(file).bind(chunk.seq).bind(chunk.part).bind(chunk.data.as_slice()).execute(&mut **tx).await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<FileRow> {
    Ok(FileRow {
        id: row.try_get("id")?,
        user: row.try_get("user_id")?,
        tenant: row.try_get("tenant")?,
        filename: row.try_get("filename")?,
        purpose: row.try_get("purpose")?,
        bytes: row.try_get("bytes")?,
        created_ms: row.try_get("created_at")?,
        expires_ms: row.try_get("expires_at")?,
    })
}
