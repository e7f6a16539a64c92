//! Attention over packed texts: each (text, key head) by itself, its scores for a few queries at a time in the first-level cache.

use super::dot::{Columns, Dot, Element, TILE_MOST, VECTORS_MOST};
use super::gemm::{Into, Lines, Panel, Target, panel_at};
use super::panels::{Form, Scratch, Text, pack_keys, pack_values, turn};
use super::pool::Team;
use super::simd::{LANES_MOST, Simd};
use super::{Act, Cpu, at_level, math};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// What an attention computes: `softmax(scale q k^T + bias, masked) v`.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// `H`.
    pub heads: usize,
    /// `G`; divides `H`.
    pub kv_heads: usize,
    /// `D`.
    pub dim: usize,
    pub scale: f32,
    /// A token sees only itself and what stands before it.
    pub causal: bool,
    /// A token sees only tokens at most this far away.
    pub reach: Option<usize>,
    /// Added to the scores by head and distance `key - query`: `[H, 2 M - 1]`, distance 0 in column `M - 1`, `M` at least the longest text's length.
    pub bias: Option<&'a [f32]>,
    /// What queries, keys, shares and values are multiplied as: f32 or bf16 (int8 as f32). Scores, softmax and result are f32.
    pub element: Element,
}

/// Queries, keys and values of all texts: a row per token, `stride` apart, with `H D` queries, then `G D` keys, then `G D` values.
#[derive(Debug, Clone, Copy)]
pub struct Projected<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

/// Working memory that is kept from call to call; each thread borrows a piece.
#[derive(Default)]
pub struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    /// Held for the moment of taking only.
    fn borrow(&self) -> Scratch {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, scratch: Scratch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}

#[derive(Clone, Copy)]
struct Out(*mut f32);
// SAFETY: each part writes the columns of its own heads in the rows of its own text.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Attends within each text; `out` is `[T, H D]`.
///
/// # Panics
/// If a buffer is too short for the texts.
pub fn attend(cpu: Cpu, team: &Team, qkv: Projected, texts: &[Range<usize>], spec: &Spec, out: &mut [f32], scratches: &Scratches) {
    let tokens = texts.iter().map(|text| text.end).max().unwrap_or(0);
    let (width, kv) = (spec.heads * spec.dim, spec.kv_heads * spec.dim);
    assert!(spec.heads.is_multiple_of(spec.kv_heads.max(1)) && width + 2 * kv <= qkv.stride);
    assert!(tokens * width <= out.len() && (tokens == 0 || (tokens - 1) * qkv.stride + width + 2 * kv <= qkv.data.len()));
    let longest = texts.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let distances = spec.bias.map_or(0, |bias| bias.len() / spec.heads.max(1));
    assert!(spec.bias.is_none() || distances + 1 >= 2 * longest);
    let (out, group) = (Out(out.as_mut_ptr()), spec.heads / spec.kv_heads.max(1));
    team.each(texts.len() * spec.kv_heads, &|part| {
        let (text, kv_head) = (&texts[part / spec.kv_heads], part % spec.kv_heads);
        if text.is_empty() {
            return;
        }
        let mut scratch = scratches.borrow();
        let row = text.start * qkv.stride;
        let one = Text {
            queries: qkv.data[row + kv_head * group * spec.dim..].as_ptr(),
            keys: qkv.data[row + width + kv_head * spec.dim..].as_ptr(),
            values: qkv.data[row + width + kv + kv_head * spec.dim..].as_ptr(),
            stride: qkv.stride,
            len: text.len(),
            first_head: kv_head * group,
            group,
            distances,
            out: out.at(text.start * width + kv_head * group * spec.dim),
            width,
        };
        let scratch_mut = &mut scratch;
        // SAFETY: the asserts say that all rows of the text are there, and no other part has this text's heads.
        at_level!(cpu, text_at(one: Text, spec: &Spec, scratch_mut: &mut Scratch));
        scratches.give_back(scratch);
    });
}

/// # Safety
/// The text's rows are as `attend` checked them, and the processor has the level.
#[inline(always)]
unsafe fn text_at<S: Simd>(text: Text, spec: &Spec, scratch: &mut Scratch) {
    // SAFETY: the caller's.
    unsafe {
        match spec.element {
            Element::Bf16 => text_as::<S::NarrowBf16>(text, spec, scratch),
            Element::F32 | Element::Int8 => text_as::<S::Narrow>(text, spec, scratch),
        }
    }
}

/// # Safety
/// As `text_at`.
#[inline(always)]
unsafe fn text_as<D: Dot>(text: Text, spec: &Spec, scratch: &mut Scratch) {
    const { assert!(D::GROUP == 1 || D::GROUP == 2) };
    let form = Form::of::<D>(text.len, spec.dim);
    scratch.fit(form);
    // SAFETY: the caller's.
    unsafe {
        pack_keys::<D>(text, form, scratch);
        pack_values::<D>(text, form, scratch);
        for head in 0..text.group {
            let bias = spec.bias.map(|bias| &bias[(text.first_head + head) * text.distances..][..text.distances]);
            for start in (0..text.len).step_by(D::TILE) {
                let rows = start..(start + D::TILE).min(text.len);
                queries_at::<D>(text, spec, head, rows, bias, scratch);
            }
        }
    }
}

/// A few queries of one head: scores, softmax, mix.
///
/// # Safety
/// As `text_at`.
#[inline(always)]
unsafe fn queries_at<D: Dot>(text: Text, spec: &Spec, head: usize, rows: Range<usize>, bias: Option<&[f32]>, scratch: &mut Scratch) {
    static ZEROS: [f32; VECTORS_MOST * LANES_MOST] = [0.; VECTORS_MOST * LANES_MOST];
    let form = Form::of::<D>(text.len, spec.dim);
    let Form { dim, panel: width, dim_groups, len_groups, .. } = form;
    let (count, padded) = (rows.len(), form.padded());
    let seen = spec.seen(rows.start, text.len).start..spec.seen(rows.end - 1, text.len).end;
    // Whole groups of keys.
    let whole = seen.start / D::GROUP * D::GROUP..seen.end.next_multiple_of(D::GROUP);
    let place = Into::Place(Act::Identity);
    let columns = Columns { bias: ZEROS.as_ptr(), step: std::ptr::null(), sum: std::ptr::null() };
    // SAFETY: the caller's: panels and scores are as `fit` made them, rows and output as `attend` checked.
    unsafe {
        let queries = queries_as::<D>(text, form, head, rows.clone(), scratch);
        let scores = scratch.scores.as_mut_ptr();
        for panel in seen.start / width..seen.end.div_ceil(width) {
            let weights = scratch.keys.as_ptr().cast::<u32>().add(panel * dim_groups * width).cast();
            let keys = Panel { weights, columns, groups: dim_groups, width };
            panel_at::<D>(queries, keys, Target { data: scores.add(panel * width), stride: padded, how: place });
        }
        let mut shares = [0f32; TILE_MOST];
        for (row, share) in shares.iter_mut().enumerate().take(count) {
            let query = rows.start + row;
            let own = spec.seen(query, text.len);
            let line = std::slice::from_raw_parts_mut(scores.add(row * padded), padded);
            line[whole.start..own.start].fill(0.);
            line[own.end..whole.end].fill(0.);
            // Distance `key - query` stands in column `M - 1 + key - query`.
            let bias = bias.map(|bias| &bias[text.distances / 2 + own.start - query..][..own.len()]);
            *share = softmax::<D::S>(&mut line[own], spec.scale, bias).recip();
            if D::GROUP > 1 {
                let line = line[whole.clone()].as_mut_ptr();
                turn::<D>(line, whole.len(), line.cast());
            }
        }
        let out = text.out.add(rows.start * text.width + head * dim);
        let mixed = Lines { words: scores.add(whole.start).cast(), stride: padded, count, factors: std::ptr::null() };
        for panel in 0..dim.div_ceil(width) {
            let weights = scratch.values.as_ptr().cast::<u32>().add((panel * len_groups + whole.start / D::GROUP) * width).cast();
            let values = Panel { weights, columns, groups: whole.len() / D::GROUP, width: (dim - panel * width).min(width) };
            panel_at::<D>(mixed, values, Target { data: out.add(panel * width), stride: text.width, how: place });
        }
        for (row, share) in shares.iter().enumerate().take(count) {
            std::slice::from_raw_parts_mut(out.add(row * text.width), dim).iter_mut().for_each(|x| *x *= share);
        }
    }
}

/// The queries of one head: where they stand, or turned.
///
/// # Safety
/// As `text_at`.
#[inline(always)]
unsafe fn queries_as<D: Dot>(text: Text, form: Form, head: usize, rows: Range<usize>, scratch: &mut Scratch) -> Lines {
    let count = rows.len();
    // SAFETY: the caller's.
    unsafe {
        let row = |row: usize| text.queries.add(row * text.stride + head * form.dim);
        if D::GROUP == 1 {
            return Lines { words: row(rows.start).cast(), stride: text.stride, count, factors: std::ptr::null() };
        }
        let words = scratch.queries.as_mut_ptr();
        for (index, query) in rows.enumerate() {
            turn::<D>(row(query), form.dim, words.add(index * form.dim_groups));
        }
        Lines { words, stride: form.dim_groups, count, factors: std::ptr::null() }
    }
}

impl Spec<'_> {
    /// The keys that a query sees.
    fn seen(&self, query: usize, len: usize) -> Range<usize> {
        let reach = self.reach.unwrap_or(len);
        let end = if self.causal { query + 1 } else { (query + 1).saturating_add(reach).min(len) };
        query.saturating_sub(reach)..end
    }
}

/// `e^(scale x + bias - max)` of each number in place; gives their sum, by which the caller divides.
///
/// # Safety
/// The processor has the level.
#[inline(always)]
unsafe fn softmax<S: Simd>(line: &mut [f32], scale: f32, bias: Option<&[f32]>) -> f32 {
    let whole = line.len() / S::LANES * S::LANES;
    let (p, scales) = (line.as_mut_ptr(), scale);
    // SAFETY: vectors reach up to `whole`; the bias is as long as the line.
    unsafe {
        let scales = S::splat(scales);
        let mut largest = S::splat(f32::NEG_INFINITY);
        for at in (0..whole).step_by(S::LANES) {
            let offset = bias.map_or(S::splat(0.), |bias| S::load(bias.as_ptr().add(at)));
            let x = S::fma(S::load(p.add(at)), scales, offset);
            S::store(p.add(at), x);
            largest = S::max(largest, x);
        }
        let mut max = S::largest(largest);
        for at in whole..line.len() {
            let x = (*p.add(at)).mul_add(scale, bias.map_or(0., |bias| bias[at]));
            *p.add(at) = x;
            max = max.max(x);
        }
        let maxima = S::splat(max);
        let mut sums = S::splat(0.);
        for at in (0..whole).step_by(S::LANES) {
            let e = math::exp::<S>(S::sub(S::load(p.add(at)), maxima));
            S::store(p.add(at), e);
            sums = S::add(sums, e);
        }
        let mut sum = S::sum(sums);
        // The rest as one vector, filled up with what weighs nothing.
        if whole < line.len() {
            let mut rest = [f32::NEG_INFINITY; LANES_MOST];
            rest[..line.len() - whole].copy_from_slice(&line[whole..]);
            let e = math::exp::<S>(S::sub(S::load(rest.as_ptr()), maxima));
            S::store(rest.as_mut_ptr(), e);
            for (x, e) in line[whole..].iter_mut().zip(rest) {
                *x = e;
                sum += e;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot::to_bf16;
    use crate::testing::{cpus, near, numbers};

    fn naive(qkv: &[f32], stride: usize, texts: &[Range<usize>], spec: &Spec, longest: usize) -> Vec<f32> {
        let (width, kv, dim, group) = (spec.heads * spec.dim, spec.kv_heads * spec.dim, spec.dim, spec.heads / spec.kv_heads);
        let mut out = vec![0.; texts.last().map_or(0, |text| text.end) * width];
        for (text, head) in texts.iter().flat_map(|text| (0..spec.heads).map(move |head| (text, head))) {
            for i in text.clone() {
                let score = |j: usize| {
                    let dot: f64 = (0..dim)
                        .map(|d| f64::from(qkv[i * stride + head * dim + d]) * f64::from(qkv[j * stride + width + head / group * dim + d]))
                        .sum();
                    let bias = spec.bias.map_or(0., |bias| bias[head * (2 * longest - 1) + longest - 1 + j - i]);
                    dot * f64::from(spec.scale) + f64::from(bias)
                };
                let seen: Vec<usize> =
                    text.clone().filter(|j| !(spec.causal && *j > i) && spec.reach.is_none_or(|reach| i.abs_diff(*j) <= reach)).collect();
                let weights: Vec<f64> = seen.iter().map(|j| score(*j).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..dim {
                    let value = |j: usize| f64::from(qkv[j * stride + width + kv + head / group * dim + d]);
                    out[i * width + head * dim + d] = (seen.iter().zip(&weights).map(|(j, w)| value(*j) * w).sum::<f64>() / sum) as f32;
                }
            }
        }
        out
    }

    #[test]
    fn attention_equals_its_definition() {
        let mut ends = [3, 1, 0, 20, 17, 5, 40].into_iter();
        let mut start = 0;
        let texts: Vec<Range<usize>> = std::iter::from_fn(|| {
            ends.next().map(|len| {
                start += len;
                start - len..start
            })
        })
        .collect();
        let (longest, tokens) = (40, start);
        for (case, (causal, reach, heads, kv_heads, dim)) in
            [(false, None, 2, 2, 16), (true, None, 4, 2, 5), (false, Some(3), 3, 1, 8), (true, Some(18), 2, 1, 33), (false, Some(0), 1, 1, 1)]
                .into_iter()
                .enumerate()
        {
            let stride = (heads + 2 * kv_heads) * dim + 3;
            let qkv = numbers(case as u64, tokens * stride);
            let bias = numbers(77, heads * (2 * longest - 1));
            for (bias, element) in [(None, Element::F32), (Some(bias.as_slice()), Element::F32), (None, Element::Bf16), (Some(&bias), Element::Bf16)]
            {
                let spec = Spec { heads, kv_heads, dim, scale: 1.3, causal, reach, bias, element };
                // What bf16 rounds besides its operands are the shares, to one part in 512.
                let (rounded, most) = match element {
                    Element::Bf16 => (qkv.iter().map(|x| f32::from_bits(u32::from(to_bf16(*x)) << 16)).collect(), 2.5e-3),
                    _ => (qkv.clone(), 2e-5),
                };
                let want = naive(&rounded, stride, &texts, &spec, longest);
                for (cpu, threads) in cpus().into_iter().flat_map(|cpu| [(cpu, 1), (cpu, 3)]) {
                    let mut got = vec![9.; want.len()];
                    attend(cpu, &Team::of(threads), Projected { data: &qkv, stride }, &texts, &spec, &mut got, &Scratches::default());
                    near(&got, &want, most, &format!("{spec:?} {:?}", cpu.level()));
                }
            }
        }
    }
}
