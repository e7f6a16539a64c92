//! The tables, as numbered steps that are compiled in: each is run once per store, in order, and never changed afterwards.

use sqlx::AssertSqlSafe;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Every step: its name and its statements. `BYTES` stands for the type that holds bytes.
const STEPS: &[(&str, &str)] = &[
    ("keys", include_str!("schema/0001_keys.sql")),
    ("usage", include_str!("schema/0002_usage.sql")),
    ("jobs", include_str!("schema/0003_jobs.sql")),
    ("rate counts", include_str!("schema/0004_rate_counts.sql")),
    ("endings", include_str!("schema/0005_endings.sql")),
];

/// What brings a store's tables up to date.
pub(super) fn migrator(postgres: bool) -> Migrator {
    let bytes = if postgres { "BYTEA" } else { "BLOB" };
    let step = |(index, (name, sql)): (usize, &(&'static str, &str))| {
        let sql = AssertSqlSafe(sql.replace("BYTES", bytes)).into_sql_str();
        Migration::new(index as i64 + 1, (*name).into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(STEPS.iter().enumerate().map(step).collect())
}
