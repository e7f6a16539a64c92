//! A linear map's weights as the product wants them: panels of 16 columns, the inner dimension running fastest over panels' rows.

/// Columns of a panel: two vectors of eight.
pub const PANEL: usize = 16;

/// `[N, K]` as `[N / 16][K][16]`, the last panel filled up with zeros.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    panels: Vec<f32>,
    /// `[N]` rounded up to whole panels, zeros where the map has none.
    bias: Vec<f32>,
    columns: usize,
    inner: usize,
}

impl Packed {
    /// Packs `[out, in]` weights, row-major. `bias` is `[out]` or empty.
    pub fn new(weights: &[f32], inner: usize, bias: &[f32]) -> Self {
        let columns = weights.len().checked_div(inner).unwrap_or(0);
        let mut packed = Self::zeros(columns, inner);
        packed.bias[..bias.len().min(columns)].copy_from_slice(&bias[..bias.len().min(columns)]);
        for (column, row) in weights.chunks_exact(inner.max(1)).enumerate() {
            let (panel, lane) = (column / PANEL, column % PANEL);
            for (k, weight) in row.iter().enumerate() {
                packed.panels[(panel * inner + k) * PANEL + lane] = *weight;
            }
        }
        packed
    }

    /// Packs weights that are stored `[in, out]`.
    pub fn transposed(weights: &[f32], columns: usize) -> Self {
        let inner = weights.len().checked_div(columns).unwrap_or(0);
        let mut packed = Self::zeros(columns, inner);
        for (k, row) in weights.chunks_exact(columns.max(1)).enumerate() {
            for (column, weight) in row.iter().enumerate() {
                packed.panels[(column / PANEL * inner + k) * PANEL + column % PANEL] = *weight;
            }
        }
        packed
    }

    fn zeros(columns: usize, inner: usize) -> Self {
        let whole = columns.next_multiple_of(PANEL);
        Self { panels: vec![0.; whole * inner], bias: vec![0.; whole], columns, inner }
    }

    /// `N`.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `K`.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.panels.len() + self.bias.len()) * size_of::<f32>()
    }

    /// How many panels there are.
    pub(super) fn count(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// `[K][16]` of one panel.
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        &self.panels[index * self.inner * PANEL..(index + 1) * self.inner * PANEL]
    }

    /// `[16]` of one panel.
    pub(super) fn bias(&self, index: usize) -> &[f32] {
        &self.bias[index * PANEL..(index + 1) * PANEL]
    }
}
