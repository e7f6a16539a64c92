//! Gets the vectors of some texts from the service, and finds out which of them are to blame when it refuses.

use crate::service::{Embedded, ItemTokens};
use crate::wire::{Detail, Fault};
use std::time::Duration;

/// How often a full queue is waited for before the texts are split or given up.
const MAX_WAITS: u32 = 20;

/// One text's vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `[dim]`.
    pub vector: Vec<f32>,
    pub tokens: ItemTokens,
}

/// What a fault means for the texts that met it.
enum Blame {
    /// One of the texts cannot be embedded; alone it would tell which.
    Texts(String),
    /// The queue is full; it will not be for ever.
    Wait(Duration),
    /// No text will fare better.
    All(String),
}

/// A vector or a reason for each text, in order.
///
/// # Errors
/// The reason, if it holds for every text.
pub async fn ask<F, Fut>(texts: &[String], embed: &F) -> Result<Vec<Result<Row, String>>, String>
where
    F: Fn(Vec<String>) -> Fut,
    Fut: Future<Output = Result<Embedded, Fault>>,
{
    let mut rows: Vec<Option<Result<Row, String>>> = texts.iter().map(|_| None).collect();
    let mut waits = 0;
    // Halving finds one bad text among n with about 2 log n requests.
    let mut todo = Vec::from_iter(std::iter::once(0..texts.len()));
    while let Some(part) = todo.pop() {
        if part.is_empty() {
            continue;
        }
        let fault = match embed(texts[part.clone()].to_vec()).await {
            Ok(embedded) => {
                fill(&mut rows[part], &embedded)?;
                continue;
            }
            Err(fault) => fault,
        };
        match blame(fault) {
            Blame::All(reason) => return Err(reason),
            Blame::Wait(time) if waits < MAX_WAITS => {
                waits += 1;
                tokio::time::sleep(time).await;
                todo.push(part);
            }
            Blame::Wait(_) if part.len() == 1 => rows[part.start] = Some(Err("the queue stayed full".to_owned())),
            Blame::Texts(reason) if part.len() == 1 => rows[part.start] = Some(Err(reason)),
            Blame::Wait(_) | Blame::Texts(_) => {
                let middle = part.start + part.len() / 2;
                todo.extend([middle..part.end, part.start..middle]);
            }
        }
    }
    Ok(rows.into_iter().map(|row| row.unwrap_or_else(|| Err("no answer".to_owned()))).collect())
}

/// Puts vectors in their places.
fn fill(rows: &mut [Option<Result<Row, String>>], embedded: &Embedded) -> Result<(), String> {
    let Embedded { vectors, dim, items, .. } = embedded;
    if items.len() != rows.len() || *dim == 0 || vectors.len() != rows.len() * dim {
        return Err(format!("{} vectors of {dim} numbers for {} texts: a defect of the service", items.len(), rows.len()));
    }
    for ((row, vector), &tokens) in rows.iter_mut().zip(vectors.chunks_exact(*dim)).zip(items) {
        *row = Some(Ok(Row { vector: vector.to_vec(), tokens }));
    }
    Ok(())
}

fn blame(fault: Fault) -> Blame {
    let about_texts = |detail: &Detail| detail.field == "input" || detail.field.starts_with("input.");
    match fault {
        Fault::Validation(details) if details.iter().all(about_texts) => {
            Blame::Texts(details.into_iter().map(|detail| detail.message).collect::<Vec<_>>().join("; "))
        }
        Fault::Validation(details) => {
            Blame::All(details.iter().map(|detail| format!("{}: {}", detail.field, detail.message)).collect::<Vec<_>>().join("; "))
        }
        Fault::Overloaded { retry_after_s } => Blame::Wait(Duration::from_secs(retry_after_s.into())),
        Fault::Backend { reason } => Blame::Texts(format!("the computation failed: {reason}")),
        Fault::BackendTimeout { deadline_ms } => Blame::Texts(format!("not computed within {deadline_ms} ms")),
        Fault::Internal => Blame::Texts("an internal fault; the log has more".to_owned()),
        Fault::ModelUnavailable { reason, .. } => Blame::All(format!("the model is not available: {reason}")),
        other => Blame::All(format!("{other:?}")),
    }
}
