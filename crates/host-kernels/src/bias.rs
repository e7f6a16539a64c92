//! What an attention adds to its scores before the softmax.

/// Beside `scale q k^T`.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    None,
    /// By head and distance `key - query`: `[H, 2 M - 1]`, distance 0 in column `M - 1`, `M` at least the longest text's length.
    Distance(&'a [f32]),
    /// By what a query and a key make of their distance.
    Content(Content<'a>),
}

/// `scale (queries[i, r] + keys[j, r])` for a query `i` and a key `j`, `r` being the row of their distance (He et al., "DeBERTa", 2021). It is one head's,
/// and no other head is attended to.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    pub head: usize,
    /// By distance `key - query`, each below `R`: `[2 M - 1]`, as above.
    pub rows: &'a [u32],
    /// `R`.
    pub width: usize,
    /// `[T, R]`.
    pub queries: Option<&'a [f32]>,
    /// `[T, R]`.
    pub keys: Option<&'a [f32]>,
}

impl Bias<'_> {
    /// `2 M - 1`; 0 if there is none.
    pub(super) fn distances(self, heads: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Distance(bias) => bias.len() / heads.max(1),
            Self::Content(content) => content.rows.len(),
        }
    }
}

impl Content<'_> {
    /// One query's for some keys, both counted from the text's first row, which is `first` of all.
    ///
    /// # Panics
    /// If a row or a distance is not there.
    pub(super) fn fill(&self, first: usize, query: usize, keys: std::ops::Range<usize>, scale: f32, to: &mut [f32]) {
        let rows = &self.rows[self.rows.len() / 2 + keys.start - query..][..keys.len()];
        match self.queries {
            Some(queries) => {
                let line = &queries[(first + query) * self.width..][..self.width];
                to.iter_mut().zip(rows).for_each(|(to, row)| *to = scale * line[*row as usize]);
            }
            None => to.fill(0.),
        }
        if let Some(all) = self.keys {
            let lines = all[(first + keys.start) * self.width..].chunks_exact(self.width);
            to.iter_mut().zip(rows).zip(lines).for_each(|((to, row), line)| *to += scale * line[*row as usize]);
        }
    }
}
