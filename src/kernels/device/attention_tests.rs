//! The packed attention against its definition, one text, head and query at a time.

use super::*;

type Rows = Vec<Vec<Vec<f32>>>;

struct Case {
    q: Rows,
    k: Rows,
    v: Rows,
    segments: Ragged,
    spec: AttnSpec,
}

impl Case {
    /// `bias(head, query row, key row, key - query)`, the rows being those of the batch.
    fn naive(&self, bias: impl Fn(usize, usize, usize, i64) -> f32) -> Rows {
        let (heads, group) = (self.q[0].len(), self.q[0].len() / self.k[0].len());
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let mut out = self.q.clone();
        for rows in self.segments.ranges() {
            for (t, h) in rows.clone().flat_map(|t| (0..heads).map(move |h| (t, h))) {
                let seen: Vec<usize> = rows.clone().filter(|s| self.spec.sees(t, *s)).collect();
                let score = |s: &usize| dot(&self.q[t][h], &self.k[*s][h / group]) * self.spec.scale as f32 + bias(h, t, *s, *s as i64 - t as i64);
                let scores: Vec<f32> = seen.iter().map(score).collect();
                let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let exp: Vec<f32> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f32 = exp.iter().sum();
                for d in 0..out[t][h].len() {
                    out[t][h][d] = seen.iter().zip(&exp).map(|(s, e)| e / sum * self.v[*s][h / group][d]).sum();
                }
            }
        }
        out
    }

    fn check(&self, bias: &Bias, naive: impl Fn(usize, usize, usize, i64) -> f32) -> Result<()> {
        let tensor = |rows: &Rows| Tensor::new(rows.clone(), &Device::Cpu);
        let got = attend(&tensor(&self.q)?, &tensor(&self.k)?, &tensor(&self.v)?, &self.segments, &self.spec, bias)?.to_vec3::<f32>()?;
        for (got, want) in got.iter().flatten().flatten().zip(self.naive(naive).iter().flatten().flatten()) {
            assert!((got - want).abs() < 1e-5, "{got} {want} {:?}", self.spec);
        }
        Ok(())
    }
}

const LENS: [usize; 8] = [3, 1, 5, 5, 2, 2, 2, 7];
const LONGEST: usize = 7;

fn cases() -> Result<Vec<Case>> {
    let segments = Ragged::from_lens(LENS);
    let mut cases = Vec::new();
    for (causal, reach, heads, kv_heads) in
        [(false, None, 2, 2), (true, None, 4, 2), (false, Some(1), 4, 1), (true, Some(2), 6, 3), (false, Some(0), 1, 1)]
    {
        let random = |heads: usize| Tensor::randn(0f32, 1., (segments.total(), heads, 4), &Device::Cpu)?.to_vec3();
        let spec = AttnSpec { scale: 0.5, causal, reach };
        cases.push(Case { q: random(heads)?, k: random(kv_heads)?, v: random(kv_heads)?, segments: segments.clone(), spec });
    }
    Ok(cases)
}

#[test]
fn texts_do_not_see_each_other_under_any_mask() -> Result<()> {
    cases()?.iter().try_for_each(|case| case.check(&Bias::None, |_, _, _, _| 0.))
}

#[test]
fn distance_is_added_by_head() -> Result<()> {
    for case in cases()? {
        let heads = case.q[0].len();
        let table = Tensor::randn(0f32, 1., (heads, 2 * LONGEST - 1), &Device::Cpu)?;
        let numbers = table.to_vec2::<f32>()?;
        case.check(&Bias::Distance(table), |h, _, _, distance| numbers[h][(distance + LONGEST as i64 - 1) as usize])?;
    }
    Ok(())
}

#[test]
fn distances_meet_queries_and_keys() -> Result<()> {
    for case in cases()?.into_iter().filter(|case| case.q[0].len() == case.k[0].len()) {
        let heads = case.q[0].len();
        let vectors = || Tensor::randn(0f32, 1., (heads, 4, 6), &Device::Cpu);
        let (key, query) = (vectors()?, vectors()?);
        let (keys, queries) = (key.to_vec3::<f32>()?, query.to_vec3::<f32>()?);
        let rows: Vec<u32> = (0..2 * LONGEST as u32 - 1).map(|at| (at * 5 + 1) % 6).collect();
        let dot = |x: &[f32], table: &[Vec<f32>], row: usize| x.iter().zip(table).map(|(x, column)| x * column[row]).sum::<f32>();
        for (key, query) in [(true, true), (true, false), (false, true)].map(|(k, q)| (k.then_some(&key), q.then_some(&query))) {
            let bias = Bias::Disentangled(Disentangling { key: key.cloned(), query: query.cloned(), rows: rows.clone() });
            case.check(&bias, |h, t, s, distance| {
                let row = rows[(distance + LONGEST as i64 - 1) as usize] as usize;
                let by_query = if key.is_some() { dot(&case.q[t][h], &keys[h], row) } else { 0. };
                let by_key = if query.is_some() { dot(&case.k[s][h], &queries[h], row) } else { 0. };
                (by_query + by_key) * case.spec.scale as f32
            })?;
        }
    }
    Ok(())
}

#[test]
fn blocks_of_queries_cover_a_text_once() {
    for (len, heads) in [(1, 1), (7, 3), (9000, 12), (40_000, 16)] {
        let blocks: Vec<_> = query_blocks(len, heads).collect();
        assert!(blocks.iter().all(|block| block.len() * len * heads <= MAX_SCORES || block.len() == 1));
        assert_eq!(blocks.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
    }
}
