//! Static embeddings: a row per token and nothing else, as sentence-transformers' StaticEmbedding and model2vec store them.

use super::json::Json;
use crate::network::{Embeddings, LoadError, Network, TokenTable, Weight, WeightTable};
use std::sync::Arc;

/// A table sets no end to a text; this bounds what one text occupies.
const MAX_TOKENS: usize = 1 << 20;

/// Describes the table. Nothing in config.json changes it: that file tells where it came from.
pub fn describe(_config: &Json, weights: &WeightTable) -> Result<Network, LoadError> {
    table(weights)
}

/// Describes the table of a checkpoint that may have no config.json: `embedding.weight` `[V, C]`, or model2vec's `embeddings` `[rows, C]` with
/// `mapping` `[V]` (the row of each id) and `weights` `[V]` (a factor per id) where there are any.
pub fn table(weights: &WeightTable) -> Result<Network, LoadError> {
    let name = if weights.has("embedding.weight") { "embedding.weight" } else { "embeddings" };
    let known: &[&str] = if name == "embeddings" { &["embeddings", "mapping", "weights"] } else { &["embedding.weight"] };
    if let Some(other) = weights.names().find(|other| !known.contains(other)) {
        return Err(LoadError::tensor(weights.label(), other, format!("is not understood beside a static table; known: {}", known.join(", "))));
    }
    let shape = weights.shape(name).unwrap_or_default().to_vec();
    let rows = weights.get_any(name, &shape)?;
    let [count, width] = shape[..] else { return Err(rows.refuse(format!("has shape {shape:?}; a table has two dimensions"))) };
    let map = match weights.shape("mapping") {
        Some(shape) => Some(map(&weights.get_any("mapping", &[shape.iter().product()])?, count)?),
        None => None,
    };
    let vocabulary = map.as_ref().map_or(count, |map| map.len());
    let factors = weights.has("weights").then(|| weights.get_any("weights", &[vocabulary])).transpose()?;
    let tokens = TokenTable { map, weights: factors, ..TokenTable::new(rows) };
    let embeddings = Embeddings { tokens, scale: 1., positions: None, token_types: None, norm: None, projection: None };
    Ok(Network { width, max_tokens: MAX_TOKENS, embeddings, layers: Vec::new(), norm: None, adapters: 0 })
}

/// The row of each id; every one must be there.
fn map(mapping: &Weight, rows: usize) -> Result<Arc<[u32]>, LoadError> {
    let numbers = mapping.integers().ok_or_else(|| mapping.refuse(format!("is stored as {:?}, not as whole numbers", mapping.stored())))?;
    let row = |(id, number): (usize, i64)| {
        let row = u32::try_from(number).ok().filter(|row| (*row as usize) < rows);
        row.ok_or_else(|| mapping.refuse(format!("sends token {id} to row {number}, but `embeddings` has {rows} rows")))
    };
    numbers.into_iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView};

    fn weights(tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> WeightTable {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).expect("fits")));
        let file = safetensors::serialize(views, None).expect("a file");
        let mut table = WeightTable::new("m");
        table.add("m", Arc::new(file)).expect("valid");
        table
    }

    fn longs(numbers: &[i64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn a_quantised_vocabulary_shares_rows() {
        let rows = ("embeddings", Dtype::I8, [2, 3].as_slice(), vec![1; 6]);
        let good = weights(&[rows.clone(), ("mapping", Dtype::I64, &[4], longs(&[0, 1, 1, 0])), ("weights", Dtype::F64, &[4], vec![0; 32])]);
        let network = table(&good).expect("describes");
        assert_eq!((network.vocabulary(), network.width, network.is_table()), (4, 3, true));
        assert_eq!(network.embeddings.tokens.map.as_deref(), Some([0, 1, 1, 0].as_slice()));
        for wrong in [2, -1] {
            let error = table(&weights(&[rows.clone(), ("mapping", Dtype::I64, &[2], longs(&[0, wrong]))])).expect_err("no such row").to_string();
            assert!(error.contains(&format!("`mapping`: sends token 1 to row {wrong}")), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_a_table_names_its_tensor() {
        let rows = ("embeddings", Dtype::F32, [2, 1].as_slice(), vec![0; 8]);
        let refusal = |tensors: &[_]| table(&weights(tensors)).expect_err("must be refused").to_string();
        let cases = [
            (vec![rows.clone(), ("head.weight", Dtype::F32, [1].as_slice(), vec![0; 4])], "`head.weight`: is not understood"),
            (vec![rows.clone(), ("weights", Dtype::F32, &[3], vec![0; 12])], "`weights`: has shape [3]"),
            (vec![rows, ("mapping", Dtype::F32, &[2], vec![0; 8])], "`mapping`: is stored as F32"),
            (vec![("embeddings", Dtype::F32, &[2], vec![0; 8])], "`embeddings`: has shape [2]"),
            (vec![("weights", Dtype::F32, &[2], vec![0; 8])], "`embeddings`: is missing"),
        ];
        for (tensors, reason) in cases {
            assert!(refusal(&tensors).contains(reason), "{}", refusal(&tensors));
        }
    }
}
