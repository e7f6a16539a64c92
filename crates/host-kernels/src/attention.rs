//! Attention over packed texts: each (text, key head) by itself, its scores for a few queries at a time in the first-level cache.

pub use super::bias::{Bias, Content};
use super::dot::{Columns, Element};
use super::kernel::{Kernel, PANEL_MOST, TILE_MOST};
use super::panels::{Form, Scratch, Text, pack_keys, pack_values};
use super::pool::Team;
use super::side::{self, SIDE, Side};
use super::simd::{Arith, LANES_MOST, Simd};
use super::tile::{Ahead, Lines, Panel};
use super::{Cpu, at_level, math};
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
    pub bias: Bias<'a>,
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
    let distances = spec.bias.distances(spec.heads);
    assert!(matches!(spec.bias, Bias::None) || distances + 1 >= 2 * longest);
    let kv_heads = match spec.bias {
        Bias::Content(content) => {
            assert!(spec.heads == spec.kv_heads && content.head < spec.heads);
            content.head..content.head + 1
        }
        _ => 0..spec.kv_heads,
    };
    let (out, group) = (Out(out.as_mut_ptr()), spec.heads / spec.kv_heads.max(1));
    let kernel = Kernel::narrow(cpu.level(), spec.element);
    team.each(texts.len() * kv_heads.len(), &|part| {
        let (text, kv_head) = (&texts[part / kv_heads.len()], kv_heads.start + part % kv_heads.len());
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
            first: text.start,
            len: text.len(),
            first_head: kv_head * group,
            group,
            distances,
            out: out.at(text.start * width + kv_head * group * spec.dim),
            width,
        };
        let scratch_mut = &mut scratch;
        // SAFETY: the asserts say that all rows of the text are there, and no other part has this text's heads.
        at_level!(cpu, text_at(kernel: &Kernel, one: Text, spec: &Spec, scratch_mut: &mut Scratch));
        scratches.give_back(scratch);
    });
}

/// # Safety
/// The text's rows are as `attend` checked them, and the processor has the level and the kernel's.
#[inline(always)]
unsafe fn text_at<S: Simd>(kernel: &Kernel, text: Text, spec: &Spec, scratch: &mut Scratch) {
    let form = Form::of(kernel, text.len, spec.dim);
    scratch.fit(form);
    // SAFETY: the caller's.
    unsafe {
        pack_keys(kernel, text, form, scratch);
        pack_values(kernel, text, form, scratch);
        for head in 0..text.group {
            for start in (0..text.len).step_by(kernel.tile) {
                let rows = start..(start + kernel.tile).min(text.len);
                let seen = spec.seen(rows.start, text.len).start..spec.seen(rows.end - 1, text.len).end;
                let few = Few { kernel, text, form, head, rows, seen };
                few.score(scratch);
                let shares = few.weigh::<S>(spec, scratch);
                few.mix(shares, scratch);
            }
        }
    }
}

/// A few queries of one head, at most a tile.
struct Few<'a> {
    kernel: &'a Kernel,
    text: Text,
    form: Form,
    head: usize,
    rows: Range<usize>,
    /// The keys that any of them sees.
    seen: Range<usize>,
}

impl Few<'_> {
    /// The keys seen, in whole groups.
    fn whole(&self) -> Range<usize> {
        let group = self.kernel.group;
        self.seen.start / group * group..self.seen.end.next_multiple_of(group)
    }

    /// `q k^T` of every key seen, into the scratch's scores.
    ///
    /// # Safety
    /// As `text_at`.
    unsafe fn score(&self, scratch: &mut Scratch) {
        let Form { panel: width, dim_groups, .. } = self.form;
        // SAFETY: the caller's: panels and scores are as `fit` made them.
        unsafe {
            let (queries, scores) = (self.queries(scratch), scratch.scores.as_mut_ptr());
            for panel in self.seen.start / width..self.seen.end.div_ceil(width) {
                let weights = scratch.keys.as_ptr().cast::<u32>().add(panel * dim_groups * width);
                (self.kernel.multiply)(queries, plain(weights, dim_groups), scores.add(panel * width), self.form.padded());
            }
        }
    }

    /// The queries where they stand, or turned.
    ///
    /// # Safety
    /// As `text_at`.
    unsafe fn queries(&self, scratch: &mut Scratch) -> Lines {
        let (Form { dim, dim_groups, .. }, text, count) = (self.form, self.text, self.rows.len());
        // SAFETY: the caller's.
        unsafe {
            let row = |row: usize| text.queries.add(row * text.stride + self.head * dim);
            if self.kernel.group == 1 {
                return Lines { words: row(self.rows.start).cast(), stride: text.stride, count, steps: std::ptr::null(), spans: 0 };
            }
            let words = scratch.queries.as_mut_ptr();
            for (index, query) in self.rows.clone().enumerate() {
                self.kernel.turn(row(query), dim, words.add(index * dim_groups));
            }
            Lines { words, stride: dim_groups, count, steps: std::ptr::null(), spans: 0 }
        }
    }

    /// Makes scores the weights of values, turned, where they stand; gives what a mix by each row of these is to be multiplied by.
    ///
    /// # Safety
    /// As `text_at`.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, spec: &Spec, scratch: &mut Scratch) -> [f32; TILE_MOST] {
        let (text, padded, whole) = (self.text, self.form.padded(), self.whole());
        let mut shares = [0f32; TILE_MOST];
        for (row, (query, share)) in self.rows.clone().zip(&mut shares).enumerate() {
            let own = spec.seen(query, text.len);
            let (line, biases) = (&mut scratch.scores[row * padded..][..padded], &mut scratch.biases[..own.len()]);
            line[whole.start..own.start].fill(0.);
            line[own.end..whole.end].fill(0.);
            let bias = match spec.bias {
                Bias::None => None,
                // Distance `key - query` stands in column `M - 1 + key - query`.
                Bias::Distance(bias) => {
                    let head = (text.first_head + self.head) * text.distances;
                    Some(&bias[head + text.distances / 2 + own.start - query..][..own.len()])
                }
                Bias::Content(content) => {
                    content.fill(text.first, query, own.clone(), spec.scale, biases);
                    Some(&*biases)
                }
            };
            // SAFETY: the caller's; groups are whole, so nothing is filled up.
            unsafe {
                *share = softmax::<S>(&mut line[own], spec.scale, bias).recip();
                if self.kernel.group > 1 {
                    let line = line[whole.clone()].as_mut_ptr();
                    self.kernel.turn(line, whole.len(), line.cast());
                }
            }
        }
        shares
    }

    /// The values by their weights, into the output.
    ///
    /// # Safety
    /// As `text_at`.
    unsafe fn mix(&self, shares: [f32; TILE_MOST], scratch: &mut Scratch) {
        let (Form { dim, panel: width, len_groups, .. }, text, whole) = (self.form, self.text, self.whole());
        let (first, groups, stride) = (whole.start / self.kernel.group, whole.len() / self.kernel.group, self.form.padded_dim());
        // SAFETY: the caller's: panels, scores and mixed are as `fit` made them, the output as `attend` checked.
        unsafe {
            let words = scratch.scores.as_ptr().add(whole.start).cast();
            let weights = Lines { words, stride: self.form.padded(), count: self.rows.len(), steps: std::ptr::null(), spans: 0 };
            for panel in 0..dim.div_ceil(width) {
                let values = scratch.values.as_ptr().cast::<u32>().add((panel * len_groups + first) * width);
                (self.kernel.multiply)(weights, plain(values, groups), scratch.mixed.as_mut_ptr().add(panel * width), stride);
            }
            for ((query, share), mixed) in self.rows.clone().zip(shares).zip(scratch.mixed.chunks(stride)) {
                let out = std::slice::from_raw_parts_mut(text.out.add(query * text.width + self.head * dim), dim);
                out.iter_mut().zip(mixed).for_each(|(out, mixed)| *out = mixed * share);
            }
        }
    }
}

/// A panel without a bias, all of which is near.
fn plain(weights: *const u32, groups: usize) -> Panel {
    static ZEROS: [f32; PANEL_MOST] = [0.; PANEL_MOST];
    let columns = Columns { bias: ZEROS.as_ptr(), step: std::ptr::null(), start: std::ptr::null() };
    Panel { weights: weights.cast(), columns, groups, ahead: Ahead::NONE }
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
        let (mut sums, sides) = (S::splat(0.), whole / (SIDE * S::LANES) * SIDE * S::LANES);
        for at in (0..sides).step_by(SIDE * S::LANES) {
            let x = Side::<S>::sub(side::load::<S>(p.add(at)), [maxima; SIDE]);
            let e = math::exp::<Side<S>>(x);
            side::store::<S>(p.add(at), e);
            for e in e {
                sums = S::add(sums, e);
            }
        }
        for at in (sides..whole).step_by(S::LANES) {
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
                    let distance = longest - 1 + j - i;
                    let bias = match spec.bias {
                        Bias::None => 0.,
                        Bias::Distance(bias) => f64::from(bias[head * (2 * longest - 1) + distance]),
                        Bias::Content(Content { rows, width, queries, keys, .. }) => {
                            let of = |table: Option<&[f32]>, token: usize| {
                                table.map_or(0., |table| f64::from(table[token * width + rows[distance] as usize]))
                            };
                            f64::from(spec.scale) * (of(queries, i) + of(keys, j))
                        }
                    };
                    dot * f64::from(spec.scale) + bias
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

    const LONGEST: usize = 40;

    fn texts() -> Vec<Range<usize>> {
        let mut start = 0;
        let lens = [3, 1, 0, 20, 17, 5, LONGEST, 2, 6, 7];
        let one = |len| {
            start += len;
            start - len..start
        };
        lens.into_iter().map(one).collect()
    }

    #[test]
    fn what_queries_and_keys_make_of_distances_is_added_one_head_at_a_time() {
        let (texts, heads, dim, width) = (texts(), 3, 7, 9);
        let (tokens, stride) = (texts.last().map_or(0, |text| text.end), 3 * heads * dim);
        let qkv = numbers(1, tokens * stride);
        let rows: Vec<u32> = (0..2 * LONGEST as u32 - 1).map(|distance| distance * 5 % width as u32).collect();
        for cpu in cpus() {
            for (head, (of_queries, of_keys)) in [(true, true), (true, false), (false, true)].into_iter().enumerate() {
                let tables = [2, 3].map(|seed| numbers(seed, tokens * width));
                let [queries, keys] = [(of_queries, &tables[0]), (of_keys, &tables[1])].map(|(there, table)| there.then_some(table.as_slice()));
                let bias = Bias::Content(Content { head, rows: &rows, width, queries, keys });
                let spec = Spec { heads, kv_heads: heads, dim, scale: 1.3, causal: false, reach: None, bias, element: Element::F32 };
                let mut want = naive(&qkv, stride, &texts, &spec, LONGEST);
                // The other heads are left as they are.
                want.chunks_mut(dim).enumerate().filter(|(at, _)| at % heads != head).for_each(|(_, other)| other.fill(9.));
                let mut got = vec![9.; want.len()];
                attend(cpu, &Team::of(2), Projected { data: &qkv, stride }, &texts, &spec, &mut got, &Scratches::default());
                near(&got, &want, 2e-5, &format!("head {head} {:?}", cpu.level()));
            }
        }
    }

    #[test]
    fn attention_equals_its_definition() {
        let texts = texts();
        let (longest, tokens) = (LONGEST, texts.last().map_or(0, |text| text.end));
        for (case, (causal, reach, heads, kv_heads, dim)) in
            [(false, None, 2, 2, 16), (true, None, 4, 2, 5), (false, Some(3), 3, 1, 8), (true, Some(18), 2, 1, 33), (false, Some(0), 1, 1, 1)]
                .into_iter()
                .enumerate()
        {
            let stride = (heads + 2 * kv_heads) * dim + 3;
            let qkv = numbers(case as u64, tokens * stride);
            let bias = numbers(77, heads * (2 * longest - 1));
            for (bias, element) in
                [Bias::None, Bias::Distance(&bias)].into_iter().flat_map(|bias| [Element::F32, Element::Bf16].map(|element| (bias, element)))
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
