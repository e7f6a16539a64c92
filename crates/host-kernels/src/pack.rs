//! A linear map's weights as the product wants them: panels of columns, the inner dimension running fastest over panels' rows.

use super::Cpu;
use super::dot::{Columns, Element, to_bf16};
use super::kernel::Kernel;
use super::quant::{self, Whole};
use super::spread::Spread;

/// `[N, K]` as `[N / PANEL][K / GROUP][PANEL][GROUP]`, the last panel and the last group filled up with zeros. How wide a panel and a group are
/// depends on the level and the element (see `kernel::Kernel`).
#[derive(Debug, Clone)]
pub struct Packed {
    cpu: Cpu,
    element: Element,
    kernel: &'static Kernel,
    panels: Lines,
    /// `[N]` rounded up to whole panels, zeros where the map has none.
    bias: Vec<f32>,
    /// Int8 only, `[N / PANEL][spans][PANEL]`: what 1 stands for, and what the sum of a span's products begins with.
    step: Vec<f32>,
    start: Vec<i32>,
    /// Int8 only: how rows of both sides are spread.
    spread: Spread,
    columns: usize,
    inner: usize,
}

impl Packed {
    /// Packs `[out, in]` weights, row-major, for this processor. `bias` is `[out]` or empty.
    pub fn new(cpu: Cpu, element: Element, weights: &[f32], inner: usize, bias: &[f32]) -> Self {
        let columns = weights.len().checked_div(inner).unwrap_or(0);
        let mut packed = Self::zeros(cpu, element, columns, inner);
        packed.put_bias(0, bias);
        for (column, row) in weights.chunks_exact(inner.max(1)).enumerate() {
            packed.put(column, row);
        }
        packed
    }

    /// Packs weights that are stored `[in, out]`.
    pub fn transposed(cpu: Cpu, element: Element, weights: &[f32], columns: usize) -> Self {
        let inner = weights.len().checked_div(columns).unwrap_or(0);
        let mut packed = Self::zeros(cpu, element, columns, inner);
        let mut row = vec![0.; inner];
        for column in 0..columns {
            row.iter_mut().zip(weights[column..].iter().step_by(columns)).for_each(|(to, weight)| *to = *weight);
            packed.put(column, &row);
        }
        packed
    }

    /// A map of zeros and no bias, for `put` to fill: so that weights need not be there as a whole before they are packed.
    pub fn zeros(cpu: Cpu, element: Element, columns: usize, inner: usize) -> Self {
        let kernel = Kernel::of(cpu.level(), element);
        let whole = columns.next_multiple_of(kernel.panel);
        let panels = Lines::zeros(whole * kernel.groups(inner) * kernel.group * element.bytes());
        let (steps, spread) = (whole * kernel.spans(inner), if element == Element::Int8 { Spread::of(inner) } else { Spread::default() });
        Self { cpu, element, kernel, panels, bias: vec![0.; whole], step: vec![0.; steps], start: vec![0; steps], spread, columns, inner }
    }

    /// Puts the bias of the columns from `first` on at its place; what is beyond the last column is left out.
    pub fn put_bias(&mut self, first: usize, bias: &[f32]) {
        let room = self.bias[..self.columns].iter_mut().skip(first);
        room.zip(bias).for_each(|(to, bias)| *to = *bias);
    }

    /// Puts the weights of one column at their places.
    ///
    /// # Panics
    /// If there is no such column, or its weights are more than the inner dimension.
    pub fn put(&mut self, column: usize, row: &[f32]) {
        assert!(column < self.columns && row.len() <= self.inner, "column {column} of {}: {} weights", self.columns, row.len());
        let group = self.kernel.group;
        match self.element {
            Element::F32 => {
                for (to, weights) in self.places(column).zip(row.chunks(group)) {
                    to.as_chunks_mut().0.iter_mut().zip(weights).for_each(|(to, weight)| *to = weight.to_ne_bytes());
                }
            }
            Element::Bf16 => {
                for (to, weights) in self.places(column).zip(row.chunks(group)) {
                    to.as_chunks_mut().0.iter_mut().zip(weights).for_each(|(to, weight)| *to = to_bf16(*weight).to_ne_bytes());
                }
            }
            Element::Int8 => {
                let Some(whole) = self.kernel.whole else { return };
                self.put_quantised(column, row, whole);
            }
        }
    }

    fn put_quantised(&mut self, column: usize, row: &[f32], whole: Whole) {
        let Kernel { panel, group, .. } = *self.kernel;
        let row = self.spread.weights(row);
        let first = column / panel * self.spans() * panel + column % panel;
        for (index, span) in row.chunks(whole.span).enumerate() {
            let (step, mut sum) = (whole.step(span), 0);
            for (to, weights) in self.places(column).skip(index * whole.span / group).zip(span.chunks(group)) {
                for (to, weight) in to.iter_mut().zip(weights) {
                    let whole = quant::weight(*weight, step);
                    *to = whole as u8;
                    sum += i32::from(whole);
                }
            }
            self.step[first + index * panel] = step;
            self.start[first + index * panel] = -sum * i32::from(whole.zero);
        }
    }

    /// Where the groups of a column stand, each beginning with its own.
    fn places(&mut self, column: usize) -> impl Iterator<Item = &mut [u8]> {
        let Kernel { panel, group, .. } = *self.kernel;
        let size = group * self.element.bytes();
        let first = (column / panel * self.groups() * panel + column % panel) * size;
        self.panels.bytes_mut()[first..].chunks_mut(panel * size)
    }

    /// `N`.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `K`.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// What its numbers are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Bytes that a map of such a size will hold.
    pub fn bytes_of(cpu: Cpu, element: Element, columns: usize, inner: usize) -> usize {
        let kernel = Kernel::of(cpu.level(), element);
        let whole = columns.next_multiple_of(kernel.panel);
        let panels = (whole * kernel.groups(inner) * kernel.group * element.bytes()).next_multiple_of(size_of::<Line>());
        let spread = if element == Element::Int8 { Spread::of(inner).bytes() } else { 0 };
        panels + (1 + 2 * kernel.spans(inner)) * whole * size_of::<f32>() + spread
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.0.len() * size_of::<Line>() + (self.bias.len() + self.step.len() + self.start.len()) * size_of::<f32>() + self.spread.bytes()
    }

    /// What it is multiplied with.
    pub(super) fn kernel(&self) -> &'static Kernel {
        self.kernel
    }

    /// The processor it is packed for.
    pub(super) fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// `K / GROUP`, rounded up; for int8 of whole blocks.
    pub(super) fn groups(&self) -> usize {
        self.kernel.groups(self.inner)
    }

    /// Steps of a row: none but for int8.
    pub(super) fn spans(&self) -> usize {
        self.kernel.spans(self.inner)
    }

    /// How an operand's rows are spread, for int8.
    pub(super) fn spread(&self) -> &Spread {
        &self.spread
    }

    /// Numbers of an operand in four bytes.
    pub(super) fn group(&self) -> usize {
        self.kernel.group
    }

    /// How many panels there are.
    pub(super) fn count(&self) -> usize {
        self.columns.div_ceil(self.kernel.panel)
    }

    /// `[K / GROUP][PANEL][GROUP]` of one panel.
    pub(super) fn panel(&self, index: usize) -> &[u8] {
        let size = self.groups() * self.kernel.panel * self.kernel.group * self.element.bytes();
        &self.panels.bytes()[index * size..(index + 1) * size]
    }

    /// What one panel knows besides its weights.
    pub(super) fn columns_of(&self, index: usize) -> Columns {
        let first = index * self.kernel.panel;
        let steps = first * self.spans();
        Columns {
            bias: self.bias.as_ptr().wrapping_add(first),
            step: self.step.as_ptr().wrapping_add(steps),
            start: self.start.as_ptr().wrapping_add(steps),
        }
    }
}

/// Bytes at the start of a cache line, so that no vector of weights lies in two.
#[derive(Debug, Clone, Default)]
struct Lines(Vec<Line>);

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Lines {
    fn zeros(bytes: usize) -> Self {
        Self(vec![Line([0; 64]); bytes.div_ceil(64)])
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes without gaps, and any bytes are good.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * size_of::<Line>()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * size_of::<Line>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cpus, numbers};

    #[test]
    fn its_size_is_known_before_it_is_packed() {
        for (cpu, element) in cpus().into_iter().flat_map(|cpu| [Element::F32, Element::Bf16, Element::Int8].map(|element| (cpu, element))) {
            for (columns, inner) in [(1, 1), (17, 33), (48, 64), (100, 7)] {
                let packed = Packed::new(cpu, element, &numbers(1, columns * inner), inner, &[]);
                assert_eq!(packed.bytes(), Packed::bytes_of(cpu, element, columns, inner), "{cpu:?} {element:?} {columns} {inner}");
            }
        }
    }

    #[test]
    fn a_bias_is_put_where_its_columns_are() {
        for cpu in cpus() {
            let mut packed = Packed::zeros(cpu, Element::F32, 5, 3);
            packed.put_bias(3, &[1., 2., 3.]);
            assert_eq!((&packed.bias[..5], packed.bias[5..].iter().sum::<f32>()), ([0., 0., 0., 1., 2.].as_slice(), 0.));
        }
    }
}
