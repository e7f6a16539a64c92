//! Rotary positions: pairs of a head's dimensions turned where they stand. Plain loops, which the compiler makes vectors of.

/// Cosines and sines, `[positions, pairs]` each.
#[derive(Debug, Clone, Copy)]
pub struct Angles<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    pub pairs: usize,
    /// Dimension `2i` turns with `2i + 1`; else `i` with `i + pairs`.
    pub interleaved: bool,
}

/// Turns every head of one text's rows, row `i` by position `i`. A row begins every `stride` numbers and has `heads` heads of `dim`, of which the
/// leading `2 * pairs` dimensions turn.
///
/// # Panics
/// If the rows or the tables are too short.
pub fn rotate(x: &mut [f32], stride: usize, heads: usize, dim: usize, angles: Angles) {
    let pairs = angles.pairs;
    for (position, row) in x.chunks_mut(stride).enumerate() {
        let cos = &angles.cos[position * pairs..(position + 1) * pairs];
        let sin = &angles.sin[position * pairs..(position + 1) * pairs];
        for head in row[..heads * dim].chunks_exact_mut(dim) {
            if angles.interleaved {
                for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    let [a, b] = *pair;
                    *pair = [a * cos - b * sin, a * sin + b * cos];
                }
            } else {
                let (first, second) = head[..2 * pairs].split_at_mut(pairs);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{near, numbers};

    #[test]
    fn each_pair_is_turned_by_its_angle_and_the_rest_is_left() {
        let (rows, stride, heads, dim, pairs) = (3, 17, 2, 7, 2);
        let angle = |row: usize, pair: usize| (row as f32 + 0.5) * (pair as f32 + 1.) * 0.7;
        let table = |f: fn(f32) -> f32| (0..rows * pairs).map(|at| f(angle(at / pairs, at % pairs))).collect::<Vec<_>>();
        let (cos, sin, x) = (table(f32::cos), table(f32::sin), numbers(1, rows * stride));
        for interleaved in [false, true] {
            let mut want = x.clone();
            for (row, head, pair) in (0..rows).flat_map(|row| (0..heads).flat_map(move |head| (0..pairs).map(move |pair| (row, head, pair)))) {
                let at = row * stride + head * dim;
                let (i, j) = if interleaved { (at + 2 * pair, at + 2 * pair + 1) } else { (at + pair, at + pair + pairs) };
                let (sin, cos) = angle(row, pair).sin_cos();
                (want[i], want[j]) = (x[i] * cos - x[j] * sin, x[i] * sin + x[j] * cos);
            }
            let mut got = x.clone();
            rotate(&mut got, stride, heads, dim, Angles { cos: &cos, sin: &sin, pairs, interleaved });
            near(&got, &want, 1e-6, "turned");
        }
    }
}
