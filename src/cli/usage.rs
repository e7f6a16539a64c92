//! `vecmill usage` and `vecmill audit`: what the store knows of who used how much, and of who changed what.

use super::start;
use crate::config::{self, Env, StoreSaid};
use crate::store::Store;
use crate::store::usage::{UsageQuery, UsageRow};
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::json;
use std::io::Write;

/// The flags of `vecmill usage`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Comma-separated values with a header line, instead of a table
    #[arg(long)]
    csv: bool,
    /// First day, such as 2026-01-01
    #[arg(long, value_name = "DAY")]
    from: Option<Date>,
    /// Last day
    #[arg(long, value_name = "DAY")]
    to: Option<Date>,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    store: StoreSaid,
}

/// The flags of `vecmill audit`.
#[derive(Debug, clap::Args)]
pub struct AuditFlags {
    #[command(flatten)]
    store: StoreSaid,
}

/// Prints one row per key, model and day.
pub fn run(flags: Flags, env: &Env, out: &mut impl Write) -> anyhow::Result<()> {
    let day = |day: Option<Date>| day.map(|day| day.to_string());
    let query = UsageQuery { tenant: flags.tenant, from: day(flags.from), to: day(flags.to), ..UsageQuery::default() };
    let place = config::resolve_store(&flags.store, env)?;
    let rows = start::run(1, async { Ok(Store::open(&place).await?.usage(&query).await?) })?;
    if flags.csv { write_csv(&rows, out) } else { write_table(&rows, out) }
}

/// Prints every change, one JSON object a line.
pub fn audit(flags: &AuditFlags, env: &Env, out: &mut impl Write) -> anyhow::Result<()> {
    let place = config::resolve_store(&flags.store, env)?;
    for entry in start::run(1, async { Ok(Store::open(&place).await?.audit().await?) })? {
        let at = Timestamp::from_millisecond(entry.at_ms)?;
        let line = json!({"at": at, "actor": entry.actor, "tenant_id": entry.tenant, "action": entry.action, "subject": entry.subject});
        writeln!(out, "{line}")?;
    }
    Ok(())
}

const COLUMNS: [&str; 9] = ["day", "tenant", "user", "key_id", "key_name", "model", "requests", "texts", "tokens"];

fn cells(row: &UsageRow) -> [String; 9] {
    let numbers = [row.requests, row.texts, row.tokens].map(|number| number.to_string());
    let [requests, texts, tokens] = numbers;
    let words = [&row.day, &row.tenant, &row.user, &row.key_id, &row.key_name, &row.model].map(String::clone);
    let [day, tenant, user, key_id, key_name, model] = words;
    [day, tenant, user, key_id, key_name, model, requests, texts, tokens]
}

fn write_csv(rows: &[UsageRow], out: &mut impl Write) -> anyhow::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS)?;
    rows.iter().try_for_each(|row| csv.write_record(cells(row)))?;
    Ok(csv.flush()?)
}

fn write_table(rows: &[UsageRow], out: &mut impl Write) -> anyhow::Result<()> {
    let lines: Vec<[String; 9]> = std::iter::once(COLUMNS.map(str::to_uppercase)).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    for line in &lines {
        let padded: Vec<String> = line.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column))).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_comma_stays_one_value() {
        let row = UsageRow { day: "2026-01-31".to_owned(), key_name: "a, \"b\"".to_owned(), tokens: 7, ..UsageRow::default() };
        let (mut csv, mut table) = (Vec::new(), Vec::new());
        write_csv(std::slice::from_ref(&row), &mut csv).unwrap();
        assert_eq!(
            String::from_utf8(csv).unwrap(),
            "day,tenant,user,key_id,key_name,model,requests,texts,tokens\n2026-01-31,,,,\"a, \"\"b\"\"\",,0,0,7\n"
        );
        write_table(std::slice::from_ref(&row), &mut table).unwrap();
        assert!(String::from_utf8(table).unwrap().lines().nth(1).unwrap().ends_with("7"));
    }
}
