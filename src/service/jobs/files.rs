//! Files on their way into the store and out of it, piece by piece.

use super::super::stored;
use super::{Jobs, no_file};
use crate::store::audit::Actor;
use crate::store::files::{CHUNK_BYTES, Chunk, Deleted, FileQuery, FileRow};
use crate::store::jobs::JobOwner;
use crate::store::{self, Store};
use crate::wire::Fault;
use jiff::Timestamp;
use std::time::Duration;

impl Jobs {
    /// Begins a file.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn upload(&self, owner: &JobOwner, filename: String, purpose: &str) -> Result<Upload, Fault> {
        let now = Timestamp::now().as_millisecond();
        let file = FileRow {
            id: file_id(),
            user: owner.user.clone(),
            tenant: owner.tenant.clone(),
            filename,
            purpose: purpose.to_owned(),
            bytes: 0,
            created_ms: now,
            expires_ms: Some(now + self.keep_ms()),
        };
        stored(self.store.begin_file(&file).await)?;
        Ok(Upload { store: self.store.clone(), max_bytes: self.options.max_file_bytes, file, seq: 0, rest: Vec::new(), settled: false })
    }

    /// A file of this user.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn file(&self, id: &str, tenant: &str, user: &str) -> Result<FileRow, Fault> {
        stored(self.store.file(id, tenant, user).await)?.ok_or_else(no_file)
    }

    /// The files asked for.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn files(&self, query: &FileQuery) -> Result<Vec<FileRow>, Fault> {
        stored(self.store.files(query).await)
    }

    /// Removes a file of this user.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a job reads it.
    pub async fn delete_file(&self, id: &str, tenant: &str, user: &str, actor: &Actor) -> Result<(), Fault> {
        match stored(self.store.delete_file(id, tenant, user, actor).await)? {
            Deleted::Yes => Ok(()),
            Deleted::Missing => Err(no_file()),
            Deleted::Read => Err(Fault::Conflict { message: "A batch job that has not ended reads this file; cancel it first".into() }),
        }
    }

    /// The pieces of a file, from its beginning.
    pub fn read(&self, id: &str) -> FileReader {
        FileReader { store: self.store.clone(), id: id.to_owned(), place: (-1, 0) }
    }
}

/// A new file's id; ids begin with the time.
pub(super) fn file_id() -> String {
    format!("file-{}", uuid::Uuid::now_v7().simple())
}

/// A file on its way in. One that is not finished is never seen, and goes when this is dropped, as when its client has left.
pub struct Upload {
    store: Store,
    max_bytes: u64,
    file: FileRow,
    seq: i64,
    rest: Vec<u8>,
    settled: bool,
}

impl Upload {
    /// Adds bytes.
    ///
    /// # Errors
    /// `PayloadTooLarge`.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.file.bytes += bytes.len() as i64;
        if self.file.bytes.unsigned_abs() > self.max_bytes {
            return Err(Fault::PayloadTooLarge { limit_bytes: self.max_bytes });
        }
        self.rest.extend_from_slice(bytes);
        while self.rest.len() >= CHUNK_BYTES {
            let behind = self.rest.split_off(CHUNK_BYTES);
            let chunk = std::mem::replace(&mut self.rest, behind);
            self.write(chunk).await?;
        }
        Ok(())
    }

    /// Makes the file visible.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn finish(mut self, actor: &Actor) -> Result<FileRow, Fault> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.write(rest).await?;
        }
        stored(self.store.finish_file(&self.file, actor).await)?;
        self.settled = true;
        Ok(self.file.clone())
    }

    /// Names the file.
    pub fn name(&mut self, filename: String) {
        self.file.filename = filename;
    }

    /// Says what it is for.
    pub fn purpose(&mut self, purpose: &str) {
        purpose.clone_into(&mut self.file.purpose);
    }

    /// Keeps it for another time than all files.
    pub fn expires_after(&mut self, time: Duration) {
        self.file.expires_ms = Some(self.file.created_ms + i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4));
    }

    async fn write(&mut self, data: Vec<u8>) -> Result<(), Fault> {
        stored(self.store.add_chunk(&self.file.id, &Chunk { seq: self.seq, part: 0, data }).await)?;
        self.seq += 1;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Without a runtime the server is at its end: what is left is removed after a day.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.settled {
            return;
        }
        let (store, id) = (self.store.clone(), std::mem::take(&mut self.file.id));
        runtime.spawn(async move {
            if let Err(error) = store.discard_file(&id).await {
                tracing::warn!(%error, "an upload that was given up is still there; it goes after a day");
            }
        });
    }
}

/// A file on its way out, piece by piece.
pub struct FileReader {
    store: Store,
    id: String,
    place: (i64, i64),
}

impl FileReader {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn next(&mut self) -> store::Result<Option<Vec<u8>>> {
        let chunk = self.store.next_chunk(&self.id, self.place.0, self.place.1).await?;
        Ok(chunk.map(|chunk| {
            self.place = (chunk.seq, chunk.part);
            chunk.data
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::jobs::Options;
    use crate::store::Place;

    #[test]
    fn an_upload_whose_client_leaves_leaves_nothing() {
        crate::store::tests::run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            let jobs = Jobs::open(store.clone(), Options::default()).await.unwrap();
            let word = |word: &str| word.to_owned();
            let owner = JobOwner { key_id: word("k"), key_name: word("n"), user: word("u"), tenant: word("t"), models: None, client: 1, weight: 1 };
            let mut upload = jobs.upload(&owner, word("f"), "batch").await.unwrap();
            upload.push(&vec![1; CHUNK_BYTES + 1]).await.unwrap();
            let id = upload.file.id.clone();
            assert!(store.next_chunk(&id, -1, 0).await.unwrap().is_some());
            drop(upload);
            while store.next_chunk(&id, -1, 0).await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
            let mut upload = jobs.upload(&owner, word("f"), "batch").await.unwrap();
            upload.push(b"abc").await.unwrap();
            let file = upload.finish(&Actor { id: word("k"), tenant: word("t") }).await.unwrap();
            assert_eq!((file.bytes, jobs.read(&file.id).next().await.unwrap()), (3, Some(b"abc".to_vec())));
        });
    }
}
