//! Answered lines on their way to the store: result lines, counts and usage that are written down together.

use super::JobOwner;
use super::work::Done;
use crate::service::usage::{self, UsageRow, Used};
use crate::store::segments::{Claim, Fate, Progress};
use crate::wire::batch::{CANCELLED, EXPIRED, KEY_ENDED, answer_line, void_line};
use std::collections::HashMap;

/// What is to be written down next.
pub(super) struct Gathered {
    pub(super) progress: Progress,
    pub(super) lines: usize,
    usage: HashMap<String, UsageRow>,
}

impl Gathered {
    pub(super) fn new(claim: &Claim) -> Self {
        let progress = Progress { next_line: claim.next_line, next_byte: claim.next_byte, ..Progress::default() };
        Self { progress, lines: 0, usage: HashMap::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.progress.output.len() + self.progress.errors.len()
    }

    /// What was gathered, and a new beginning behind it.
    pub(super) fn take(&mut self) -> Progress {
        let (next_line, next_byte) = (self.progress.next_line, self.progress.next_byte);
        let mut progress = std::mem::replace(&mut self.progress, Progress { next_line, next_byte, ..Progress::default() });
        progress.usage = std::mem::take(&mut self.usage).into_values().collect();
        progress.usage.sort_by_key(UsageRow::place);
        self.lines = 0;
        progress
    }

    pub(super) fn add(&mut self, claim: &Claim, owner: &JobOwner, done: Done) {
        let id = format!("batch_req_{}_{}", claim.job.id.trim_start_matches("batch_"), done.number);
        let request_id = format!("req_{}_{}", claim.job.id.trim_start_matches("batch_"), done.number);
        let progress = &mut self.progress;
        match done.answer {
            Some(answer) => {
                let line = answer_line(&id, &done.custom_id, answer.status, &request_id, &answer.body);
                if (200..300).contains(&answer.status) {
                    progress.output.extend(line);
                    progress.completed += 1;
                } else {
                    progress.errors.extend(line);
                    progress.failed += 1;
                }
                progress.tokens += answer.tokens as i64;
                if let Some(model) = &answer.model {
                    let used = Used { texts: answer.texts, tokens: answer.tokens, took: answer.took };
                    usage::merge(&mut self.usage, usage::job_row(owner, model, used));
                }
            }
            None => {
                let (code, message) = match claim.fate {
                    Fate::Cancel => CANCELLED,
                    Fate::Stop => KEY_ENDED,
                    Fate::Run | Fate::Expire => EXPIRED,
                };
                progress.errors.extend(void_line(&id, &done.custom_id, code, message));
                progress.failed += 1;
                progress.void += 1;
            }
        }
        progress.next_line = done.number + 1;
        progress.next_byte = done.next_byte;
        self.lines += 1;
    }
}
