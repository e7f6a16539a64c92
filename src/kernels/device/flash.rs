//! Attention over packed texts in one kernel: online softmax, no scores in memory, no padding (`attention_half.cu`, `attention_f32.cu`).

use super::attention::{AttnSpec, Bias};
use super::launch::{Arg, Call, Module, blank, int, suffix};
use crate::ragged::Ragged;
use candle_core::{DType, Device, Result, Tensor};

/// Head sizes that are compiled; another one is computed as the next larger.
const HEADS: [usize; 5] = [32, 64, 96, 128, 256];
/// Texts are shorter than this, so it stands for no limit.
const NO_LIMIT: i32 = 1 << 28;
const THREADS: usize = 128;

/// The work of a batch in portions: some queries of one text each, the longest texts first. Made once per batch.
pub struct Tiles {
    /// `[portions, 3]`: the text's first row, its tokens, the first query.
    list: Vec<u32>,
    on_device: Tensor,
}

impl Tiles {
    /// For attention in `dtype`.
    ///
    /// # Errors
    /// A device that fails.
    pub fn new(segments: &Ragged, dtype: DType, device: &Device) -> Result<Self> {
        let list = Self::list(segments, dtype);
        Ok(Self { on_device: Tensor::new(list.as_slice(), device)?, list })
    }

    /// The portions as numbers, for a caller that uploads them with others.
    pub fn list(segments: &Ragged, dtype: DType) -> Vec<u32> {
        let step = if dtype == DType::F32 { 16 } else { 64 };
        let mut texts: Vec<_> = segments.ranges().collect();
        texts.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
        let portions = texts.iter().flat_map(|rows| (0..rows.len()).step_by(step).map(move |first| [rows.start, rows.len(), first]));
        portions.flatten().map(|number| number as u32).collect()
    }

    /// From numbers that are on the device already.
    pub fn uploaded(list: Vec<u32>, on_device: Tensor) -> Self {
        Self { list, on_device }
    }
}

/// Whether the kernel computes heads of `dim` numbers with this bias.
pub fn supports(dim: usize, bias: &Bias) -> bool {
    dim <= HEADS[HEADS.len() - 1] && !matches!(bias, Bias::Disentangled(_))
}

/// As `attention::attend`, in one kernel. Heads lie side by side within a row; rows may be parts of wider ones.
///
/// # Errors
/// What `supports` denies, a device that fails.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, tiles: &Tiles, spec: &AttnSpec, bias: &Bias) -> Result<Tensor> {
    let (tokens, heads, dim) = q.dims3()?;
    let (Some(head), kv_heads) = (HEADS.into_iter().find(|head| *head >= dim), k.dim(1)?) else { candle_core::bail!("no kernel for heads of {dim}") };
    let dtype = q.dtype();
    let half = dtype != DType::F32;
    let (kind, numbers) = match bias {
        Bias::None => (0, None),
        Bias::Slopes(slopes) => (1, Some(slopes)),
        Bias::Distance(table) => (2, Some(table)),
        Bias::Disentangled(_) => candle_core::bail!("no kernel for disentangled attention"),
    };
    let width = if kind == 2 { numbers.map_or(Ok(0), |table| table.dim(1))? } else { 0 };
    let reach = spec.reach.map_or(NO_LIMIT, |reach| i32::try_from(reach).unwrap_or(NO_LIMIT).min(NO_LIMIT));
    let [q_stride, k_stride, v_stride] = [row_stride(q)?, row_stride(k)?, row_stride(v)?];
    let whole = |tensor: &Tensor, stride: usize| stride.is_multiple_of(8) && tensor.layout().start_offset().is_multiple_of(8);
    let aligned = half && dim.is_multiple_of(8) && whole(q, q_stride) && whole(k, k_stride) && whole(v, v_stride);
    let out = blank((tokens, heads, dim), q, dtype)?;
    let call = Call {
        module: if half { Module::AttentionHalf(head) } else { Module::AttentionF32 },
        function: format!("attention_{}_{head}", suffix(dtype)?),
        blocks: [tiles.list.len() / 3, heads, 1],
        threads: THREADS,
        shared_bytes: if half { half_bytes(head) } else { f32_bytes(head) },
        args: vec![
            Arg::Out(0),
            Arg::In(q),
            Arg::In(k),
            Arg::In(v),
            Arg::In(&tiles.on_device),
            numbers.map_or(Arg::Absent, Arg::In),
            Arg::Int(kind),
            int(width)?,
            Arg::Int(reach),
            Arg::Int(if spec.causal { 0 } else { reach }),
            Arg::Float(spec.scale as f32),
            int(q_stride)?,
            int(k_stride)?,
            int(v_stride)?,
            int(dim)?,
            int(heads / kv_heads.max(1))?,
            Arg::Int(aligned.into()),
        ],
    };
    call.write(&out)?;
    Ok(out)
}

/// How far apart the rows of `[T, H, D]` lie, its heads lying side by side.
fn row_stride(x: &Tensor) -> Result<usize> {
    match *x.stride() {
        [row, head, 1] if head == x.dim(2)? || x.dim(1)? == 1 => Ok(row),
        _ => candle_core::bail!("heads of {:?} do not lie side by side: strides {:?}", x.dims(), x.stride()),
    }
}

/// 64 queries, and two portions of keys and of values, in rows that are 8 numbers longer.
fn half_bytes(head: usize) -> usize {
    let keys = if head > 128 { 32 } else { 64 };
    (64 + 4 * keys) * (head + 8) * 2
}

/// 16 queries, 32 keys in rows that are one number longer, 32 values.
fn f32_bytes(head: usize) -> usize {
    (16 * head + 32 * (head + 1) + 32 * head) * 4
}
