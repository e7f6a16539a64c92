//! A job's life in the store: lines are written once and in order whoever does them, and silence costs a server its claim.

use super::*;
use crate::store::Place;
use crate::store::audit::Actor;
use crate::store::files::{Deleted, FileQuery};
use crate::store::jobs::{JobOwner, JobTimes};
use crate::store::tests::run;

const DAY_MS: i64 = 86_400_000;
const ENDING: Ending = Ending { keep_ms: DAY_MS, expired_is_failed: false };

fn actor() -> Actor {
    Actor { id: "k".to_owned(), tenant: "t".to_owned() }
}

fn job(id: &str) -> JobRow {
    let owner = JobOwner {
        key_id: "k".to_owned(),
        key_name: "n".to_owned(),
        user: "u".to_owned(),
        tenant: "t".to_owned(),
        models: Some(vec!["m".to_owned()]),
        client: u64::MAX - 1,
        weight: 2,
    };
    JobRow {
        id: id.to_owned(),
        dialect: "native".to_owned(),
        owner,
        endpoint: String::new(),
        completion_window: "24h".to_owned(),
        metadata: None,
        keep_ms: None,
        input_file_id: "file-in".to_owned(),
        output_file_id: format!("file-out-{id}"),
        error_file_id: format!("file-err-{id}"),
        output_bytes: 0,
        error_bytes: 0,
        status: "validating".to_owned(),
        errors: None,
        total: 0,
        completed: 0,
        failed: 0,
        tokens: 0,
        times: JobTimes::default(),
    }
}

/// A job of two segments of two lines, ten bytes each.
async fn started(store: &Store, id: &str, window_ms: i64) {
    input(store, None).await;
    started_as(store, job(id), window_ms).await;
}

/// The input of every job here.
async fn input(store: &Store, expires_ms: Option<i64>) {
    let (id, word) = ("file-in".to_owned(), |word: &str| word.to_owned());
    let file = FileRow { id, user: word("u"), tenant: word("t"), filename: word("f"), purpose: word("batch"), bytes: 0, created_ms: 0, expires_ms };
    store.discard_file("file-in").await.unwrap();
    store.begin_file(&file).await.unwrap();
    store.finish_file(&file, &actor()).await.unwrap();
}

async fn started_as(store: &Store, row: JobRow, window_ms: i64) {
    let id = row.id.as_str();
    assert!(store.insert_job(&row, window_ms, &actor()).await.unwrap());
    assert_eq!(store.claim_validation("a").await.unwrap().unwrap().owner, job(id).owner);
    assert!(store.claim_validation("b").await.unwrap().is_none(), "one server looks through it");
    let segment = |seq| Segment { seq, first_line: seq * 2, start_byte: seq * 20, end_byte: seq * 20 + 20 };
    assert!(store.start_job(id, "a", 4, &[segment(0), segment(1)]).await.unwrap());
}

fn line(claim: &Claim, text: &str) -> Progress {
    Progress {
        output: text.as_bytes().to_vec(),
        completed: 1,
        next_line: claim.next_line + 1,
        next_byte: claim.next_byte + 10,
        ..Progress::default()
    }
}

async fn content(store: &Store, file: &str) -> String {
    let (mut text, mut place) = (Vec::new(), (-1, 0));
    while let Some(chunk) = store.next_chunk(file, place.0, place.1).await.unwrap() {
        text.extend(chunk.data);
        place = (chunk.seq, chunk.part);
    }
    String::from_utf8(text).unwrap()
}

/// As if this server had been silent for longer than its lease.
async fn silence(store: &Store, owner: &str) {
    sqlx::query("UPDATE segments SET lease_until = 0 WHERE owner = $1").bind(owner).execute(&store.pool).await.unwrap();
}

#[test]
fn two_servers_share_a_job_and_its_output_is_in_order() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        started(&store, "batch_1", DAY_MS).await;
        let a = store.claim_segment("a").await.unwrap().unwrap();
        let b = store.claim_segment("b").await.unwrap().unwrap();
        assert_eq!((a.seq, b.seq, a.fate, store.claim_segment("c").await.unwrap()), (0, 1, Fate::Run, None));
        let b = store.advance(&b, "b", &line(&b, "3\n"), ENDING).await.unwrap().unwrap();
        assert!(store.advance(&b, "b", &line(&b, "4\n"), ENDING).await.unwrap().is_none());
        let a = store.advance(&a, "a", &line(&a, "1\n"), ENDING).await.unwrap().unwrap();
        assert_eq!(store.job("batch_1", "t", "u").await.unwrap().unwrap().status, "in_progress");
        assert!(store.file("file-out-batch_1", "t", "u").await.unwrap().is_none());
        store.advance(&a, "a", &line(&a, "2\n"), ENDING).await.unwrap();
        let job = store.job("batch_1", "t", "u").await.unwrap().unwrap();
        assert_eq!((job.status.as_str(), job.completed, job.total), ("completed", 4, 4));
        assert_eq!(content(&store, "file-out-batch_1").await, "1\n2\n3\n4\n");
        assert_eq!(store.file("file-out-batch_1", "t", "u").await.unwrap().unwrap().bytes, 8);
        assert!(store.file("file-out-batch_1", "t", "other").await.unwrap().is_none());
        assert!(store.file("file-err-batch_1", "t", "u").await.unwrap().is_none(), "no errors, no file");
        assert!(store.job("batch_1", "t", "other").await.unwrap().is_none() && store.job("batch_1", "other", "u").await.unwrap().is_none());
    });
}

#[test]
fn a_silent_server_loses_its_claim_and_writes_nothing_twice() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        started(&store, "batch_1", DAY_MS).await;
        let a = store.claim_segment("a").await.unwrap().unwrap();
        let a = store.advance(&a, "a", &line(&a, "1\n"), ENDING).await.unwrap().unwrap();
        silence(&store, "a").await;
        let taken = store.claim_segment("b").await.unwrap().unwrap();
        assert_eq!((taken.seq, taken.next_line, taken.next_byte, taken.part), (0, 1, 10, 1), "behind what was written");
        assert!(store.advance(&a, "a", &line(&a, "2 by a\n"), ENDING).await.unwrap().is_none(), "too late");
        store.advance(&taken, "b", &line(&taken, "2 by b\n"), ENDING).await.unwrap();
        assert!(store.advance(&taken, "b", &line(&taken, "2 again\n"), ENDING).await.unwrap().is_none(), "once");
        assert_eq!(content(&store, "file-out-batch_1").await, "1\n2 by b\n");
        assert_eq!(store.any_job("batch_1").await.unwrap().unwrap().completed, 2, "what was not written is not counted");
        store.claim_segment("a").await.unwrap().unwrap();
        store.renew("a").await.unwrap();
        assert!(store.claim_segment("b").await.unwrap().is_none(), "renewed");
        store.release("a").await.unwrap();
        assert_eq!(store.claim_segment("b").await.unwrap().unwrap().seq, 1, "given back");
    });
}

#[test]
fn cancelled_and_expired_jobs_end_with_what_was_done() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        started(&store, "batch_1", DAY_MS).await;
        let a = store.claim_segment("a").await.unwrap().unwrap();
        store.cancel_job("batch_1", "t", "other", &actor()).await.unwrap();
        assert_eq!(store.any_job("batch_1").await.unwrap().unwrap().status, "in_progress", "not another user's to cancel");
        store.cancel_job("batch_1", "t", "u", &actor()).await.unwrap();
        let a = store.advance(&a, "a", &line(&a, "1\n"), ENDING).await.unwrap().unwrap();
        assert_eq!(a.fate, Fate::Cancel, "noticed with the next line");
        let given_up = Progress { errors: b"x\n".to_vec(), failed: 1, void: 1, next_line: 2, next_byte: 20, ..Progress::default() };
        store.advance(&a, "a", &given_up, ENDING).await.unwrap();
        let rest = store.claim_segment("a").await.unwrap().unwrap();
        let given_up = Progress { errors: b"y\nz\n".to_vec(), failed: 2, void: 2, next_line: 4, next_byte: 40, ..Progress::default() };
        assert_eq!(rest.fate, Fate::Cancel);
        store.advance(&rest, "a", &given_up, ENDING).await.unwrap();
        let job = store.any_job("batch_1").await.unwrap().unwrap();
        assert_eq!((job.status.as_str(), job.completed, job.failed), ("cancelled", 1, 3));
        assert_eq!((content(&store, &job.output_file_id).await, content(&store, &job.error_file_id).await), ("1\n".into(), "x\ny\nz\n".into()));
        store.cancel_job("batch_1", "t", "u", &actor()).await.unwrap();
        assert_eq!(store.any_job("batch_1").await.unwrap().unwrap(), job, "cancelling what has ended changes nothing");

        started(&store, "batch_2", -1).await;
        for _ in 0..2 {
            let claim = store.claim_segment("a").await.unwrap().unwrap();
            assert_eq!(claim.fate, Fate::Expire);
            let end = Progress { errors: b"x\n".to_vec(), failed: 2, void: 2, next_byte: claim.end_byte, ..Progress::default() };
            store.advance(&claim, "a", &end, ENDING).await.unwrap();
        }
        assert_eq!(store.any_job("batch_2").await.unwrap().unwrap().status, "expired");
        assert_eq!(store.jobs("t", "u", "", "", 10).await.unwrap().iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["batch_2", "batch_1"]);
        assert_eq!(store.jobs("t", "u", "expired", "batch_3", 1).await.unwrap().len(), 1);
    });
}

#[test]
fn a_job_ends_with_its_key_and_says_so() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        started(&store, "batch_1", DAY_MS).await;
        store.insert_job(&job("batch_2"), DAY_MS, &actor()).await.unwrap();
        let a = store.claim_segment("a").await.unwrap().unwrap();
        assert_eq!(store.keys_at_work().await.unwrap(), [("k".to_owned(), None)], "not a key of the store");
        store.end_jobs_of("other").await.unwrap();
        assert_eq!(store.fate("batch_1").await.unwrap().0, Fate::Run);
        store.end_jobs_of("k").await.unwrap();
        let waiting = store.any_job("batch_2").await.unwrap().unwrap();
        assert_eq!((waiting.status.as_str(), waiting.errors.unwrap().contains("api_key_ended")), ("failed", true));
        let a = store.advance(&a, "a", &line(&a, "1\n"), ENDING).await.unwrap().unwrap();
        assert_eq!(a.fate, Fate::Stop, "noticed with the next line");
        for claim in [a, store.claim_segment("b").await.unwrap().unwrap()] {
            let lines = 2 * (claim.seq + 1) - claim.next_line;
            let owner = if claim.seq == 0 { "a" } else { "b" };
            let end =
                Progress { errors: b"x\n".repeat(lines as usize), failed: lines, void: lines, next_byte: claim.end_byte, ..Progress::default() };
            store.advance(&claim, owner, &end, ENDING).await.unwrap();
        }
        let job = store.any_job("batch_1").await.unwrap().unwrap();
        assert_eq!((job.status.as_str(), job.completed, job.failed, job.errors.unwrap().contains("api_key_ended")), ("failed", 1, 3, true));
        assert!(store.keys_at_work().await.unwrap().is_empty());
    });
}

#[test]
fn a_closed_window_is_a_failure_where_the_operator_says_so() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        let keep_ms = Some(7_200_000);
        input(&store, None).await;
        started_as(&store, JobRow { keep_ms, ..job("batch_1") }, -1).await;
        while let Some(claim) = store.claim_segment("a").await.unwrap() {
            let end = Progress { errors: b"x\n".to_vec(), failed: 2, void: 2, next_byte: claim.end_byte, ..Progress::default() };
            store.advance(&claim, "a", &end, Ending { expired_is_failed: true, ..ENDING }).await.unwrap();
        }
        let job = store.any_job("batch_1").await.unwrap().unwrap();
        assert_eq!((job.status.as_str(), job.errors.unwrap().contains("batch_expired")), ("failed", true));
        let file = store.file(&job.error_file_id, "t", "u").await.unwrap().unwrap();
        assert_eq!(file.expires_ms, job.times.ended_ms.map(|ended| ended + 7_200_000), "its own time to keep");
    });
}

#[test]
fn a_file_that_a_job_reads_stays_even_when_it_expires() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        assert!(!store.insert_job(&job("batch_0"), DAY_MS, &actor()).await.unwrap(), "no input, no job");
        input(&store, Some(1)).await;
        started_as(&store, job("batch_1"), DAY_MS).await;
        assert_eq!(store.remove_expired_files().await.unwrap(), 0);
        assert_eq!(store.delete_file("file-in", "t", "u", &actor()).await.unwrap(), Deleted::Read);
        while let Some(claim) = store.claim_segment("a").await.unwrap() {
            store.advance(&claim, "a", &Progress { next_byte: claim.end_byte, completed: 2, ..Progress::default() }, ENDING).await.unwrap();
        }
        assert_eq!(store.remove_expired_files().await.unwrap(), 1);
    });
}

#[test]
fn files_are_read_by_range_and_end_when_they_expire() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 2 + 1000).map(|n| (n % 251) as u8).collect();
        let file = |id: &str, expires_ms| FileRow {
            id: id.to_owned(),
            user: "u".to_owned(),
            tenant: "t".to_owned(),
            filename: "f.jsonl".to_owned(),
            purpose: "batch".to_owned(),
            bytes: 0,
            created_ms: i64::MAX / 2,
            expires_ms,
        };
        store.begin_file(&file("file-1", None)).await.unwrap();
        for (seq, data) in bytes.chunks(CHUNK_BYTES).enumerate() {
            store.add_chunk("file-1", &Chunk { seq: seq as i64, part: 0, data: data.to_vec() }).await.unwrap();
        }
        assert!(store.file("file-1", "t", "u").await.unwrap().is_none(), "not finished");
        store.finish_file(&FileRow { bytes: bytes.len() as i64, ..file("file-1", None) }, &actor()).await.unwrap();
        assert_eq!(store.file("file-1", "t", "u").await.unwrap().unwrap().bytes, bytes.len() as i64);
        for (start, end) in
            [(0, bytes.len()), (5, 6), (CHUNK_BYTES - 3, CHUNK_BYTES + 3), (CHUNK_BYTES, CHUNK_BYTES * 2), (bytes.len() - 1, bytes.len())]
        {
            assert_eq!(store.file_range("file-1", start as i64, end as i64).await.unwrap(), bytes[start..end], "{start}..{end}");
        }
        store.begin_file(&file("file-2", Some(1))).await.unwrap();
        store.finish_file(&file("file-2", Some(1)), &actor()).await.unwrap();
        assert!(store.file("file-2", "t", "u").await.unwrap().is_none(), "expired");
        assert_eq!(store.remove_expired_files().await.unwrap(), 1);
        let query = FileQuery { tenant: "t".to_owned(), user: "u".to_owned(), limit: 10, ..FileQuery::default() };
        assert_eq!(store.files(&query).await.unwrap().len(), 1);
        assert!(
            store.delete_file("file-1", "t", "other", &actor()).await.unwrap() == Deleted::Missing
                && store.delete_file("file-1", "t", "u", &actor()).await.unwrap() == Deleted::Yes
        );
        assert!(store.next_chunk("file-1", -1, 0).await.unwrap().is_none());
    });
}

#[test]
fn a_full_disk_writes_nothing_and_the_work_goes_on_when_there_is_room() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Place::File(dir.path().join("vecmill.db"))).await.unwrap();
        started(&store, "batch_1", DAY_MS).await;
        let a = store.claim_segment("a").await.unwrap().unwrap();
        let pages: i64 = sqlx::query("PRAGMA page_count").fetch_one(&store.pool).await.unwrap().try_get(0).unwrap();
        let limit = |pages: i64| sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}")));
        limit(pages + 10).execute(&store.pool).await.unwrap();
        let large = line(&a, &"x".repeat(1 << 20));
        assert!(store.advance(&a, "a", &large, ENDING).await.unwrap_err().to_string().contains("full"));
        assert_eq!((store.any_job("batch_1").await.unwrap().unwrap().completed, content(&store, "file-out-batch_1").await), (0, String::new()));
        limit(1 << 30).execute(&store.pool).await.unwrap();
        let again = store.claim_segment("a").await.unwrap().unwrap();
        assert_eq!((again.seq, again.part, again.next_line), (a.seq, a.part, a.next_line), "its own claim, where it was");
        assert!(store.advance(&a, "a", &large, ENDING).await.unwrap().is_some());
        assert_eq!(content(&store, "file-out-batch_1").await.len(), 1 << 20);
    });
}
