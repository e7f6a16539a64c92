//! Counts of rate limits that several servers share: read, changed and written back under a lock on each row.

use super::{Result, Store};
use sqlx::Row;

/// Counts that were not touched for this long say nothing any more.
const STALE_MS: i64 = 180_000;

impl Store {
    /// Locks the counts of these subjects, lets `change` work on them at the store's time in milliseconds, and keeps what it makes of them. A
    /// subject that is not known has ''.
    ///
    /// # Errors
    /// If the store fails; then nothing is changed.
    pub async fn change_counts<T>(&self, subjects: &[String], change: impl FnOnce(u64, &mut [String]) -> T + Send) -> Result<T> {
        // In one order everywhere: nobody waits in a circle.
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        order.sort_by_key(|index| &subjects[*index]);
        let mut tx = self.write().await?;
        let mut counts = vec![String::new(); subjects.len()];
        for &index in &order {
            // The update of a row that is there locks it and tells what it holds, in one round.
            let upsert = "INSERT INTO rate_counts (subject, counts, updated_at) VALUES ($1, '', {now}) \
                          ON CONFLICT (subject) DO UPDATE SET updated_at = excluded.updated_at RETURNING counts";
            counts[index] = sqlx::query(self.sql(upsert)).bind(&subjects[index]).fetch_one(&mut *tx).await?.try_get(0)?;
        }
        // Read under the locks: later than whatever the last holder has counted.
        let now: i64 = sqlx::query(self.sql("SELECT {now}")).fetch_one(&mut *tx).await?.try_get(0)?;
        let before = counts.clone();
        let made = change(now.unsigned_abs(), &mut counts);
        for &index in order.iter().filter(|index| counts[**index] != before[**index]) {
            let update = "UPDATE rate_counts SET counts = $2 WHERE subject = $1";
            sqlx::query(update).bind(&subjects[index]).bind(&counts[index]).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(made)
    }

    /// Forgets counts that say nothing any more.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn remove_stale_counts(&self) -> Result<()> {
        let delete = "DELETE FROM rate_counts WHERE updated_at < {now} - $1";
        sqlx::query(self.sql(delete)).bind(STALE_MS).execute(&self.pool).await?;
        Ok(())
    }
}
