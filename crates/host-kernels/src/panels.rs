//! An attention's keys and values as panels that a product reads, in f32 or bf16, and one thread's memory for them.

use super::kernel::{Kernel, TILE_MOST};
use super::spread::Spread;

/// One thread's working memory.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[L / PANEL][D / GROUP][PANEL]` words of `GROUP` dimensions.
    pub(super) keys: Vec<Line>,
    /// `[D / PANEL][L / GROUP][PANEL]` words of `GROUP` keys.
    pub(super) values: Vec<Line>,
    /// `[TILE][D / GROUP]`, where queries must be turned, and two rows on their way into the panels.
    pub(super) queries: Vec<u32>,
    /// `[TILE, L rounded up]`.
    pub(super) scores: Vec<f32>,
    /// `[L]`: one query's, where they are not by distance alone.
    pub(super) biases: Vec<f32>,
    /// `[TILE, D rounded up]`.
    pub(super) mixed: Vec<f32>,
}

/// Sixteen words at the start of a cache line, so that no vector of a panel lies in two.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line([u32; 16]);

/// How a text's keys and values are packed.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) len: usize,
    pub(super) dim: usize,
    /// Columns of a panel.
    pub(super) panel: usize,
    /// `D / GROUP` and `L / GROUP`, rounded up.
    pub(super) dim_groups: usize,
    pub(super) len_groups: usize,
}

impl Form {
    pub(super) fn of(kernel: &Kernel, len: usize, dim: usize) -> Self {
        Self { len, dim, panel: kernel.panel, dim_groups: dim.div_ceil(kernel.group), len_groups: len.div_ceil(kernel.group) }
    }

    /// Length of a line of scores: whole panels.
    pub(super) fn padded(self) -> usize {
        self.len.next_multiple_of(self.panel)
    }

    /// Length of a line of mixed values.
    pub(super) fn padded_dim(self) -> usize {
        self.dim.next_multiple_of(self.panel)
    }
}

impl Scratch {
    pub(super) fn fit(&mut self, form: Form) {
        fn grow<T: Clone + Default>(buffer: &mut Vec<T>, size: usize) {
            if buffer.len() < size {
                buffer.resize(size, T::default());
            }
        }
        grow(&mut self.keys, (form.padded() * form.dim_groups).div_ceil(16));
        grow(&mut self.values, (form.padded_dim() * form.len_groups).div_ceil(16));
        grow(&mut self.queries, (TILE_MOST * form.dim_groups).max(2 * form.dim));
        grow(&mut self.scores, TILE_MOST * form.padded());
        grow(&mut self.biases, form.len);
        grow(&mut self.mixed, TILE_MOST * form.padded_dim());
    }
}

/// One text's part of the work: a key head and the query heads that read it.
#[derive(Clone, Copy)]
pub(super) struct Text {
    pub(super) queries: *const f32,
    pub(super) keys: *const f32,
    pub(super) values: *const f32,
    pub(super) stride: usize,
    /// Its first row of all.
    pub(super) first: usize,
    pub(super) len: usize,
    pub(super) first_head: usize,
    pub(super) group: usize,
    /// `2 M - 1`.
    pub(super) distances: usize,
    pub(super) out: *mut f32,
    pub(super) width: usize,
}

/// Keys turned into panels, the last filled up with zeros.
///
/// # Safety
/// The text's rows are as `attend` checked them, the scratch has room, and the processor has the kernel's level.
#[inline(always)]
pub(super) unsafe fn pack_keys(kernel: &Kernel, text: Text, form: Form, scratch: &mut Scratch) {
    let (panel, groups) = (form.panel, form.dim_groups);
    let (words, turned) = (scratch.keys.as_mut_ptr().cast::<u32>(), scratch.queries.as_mut_ptr());
    for key in 0..form.padded() {
        // SAFETY: the caller's; a row is `groups` words.
        unsafe {
            let to = words.add(key / panel * groups * panel + key % panel);
            if key >= text.len {
                (0..groups).for_each(|group| *to.add(group * panel) = 0);
                continue;
            }
            let x = text.keys.add(key * text.stride);
            let row = if kernel.group == 1 { x.cast() } else { turned.cast_const() };
            if kernel.group > 1 {
                kernel.turn(x, form.dim, turned);
            }
            (0..groups).for_each(|group| *to.add(group * panel) = *row.add(group));
        }
    }
}

/// Values as panels of dimensions, the last filled up with zeros.
///
/// # Safety
/// The text's rows are as `attend` checked them, the scratch has room, and the processor has the kernel's level.
#[inline(always)]
pub(super) unsafe fn pack_values(kernel: &Kernel, text: Text, form: Form, scratch: &mut Scratch) {
    let Form { panel, dim, len_groups, .. } = form;
    let words = scratch.values.as_mut_ptr().cast::<u32>();
    let halves = scratch.queries.as_mut_ptr().cast::<u16>();
    for (index, group) in (0..dim.div_ceil(panel)).flat_map(|index| (0..len_groups).map(move |group| (index, group))) {
        let width = (dim - index * panel).min(panel);
        // SAFETY: the caller's: the group's first key is there, and so is the second unless the text ends before it.
        unsafe {
            let to = std::slice::from_raw_parts_mut(words.add((index * len_groups + group) * panel), panel);
            let row = |key: usize| text.values.add(key * text.stride + index * panel);
            if kernel.group == 1 {
                std::ptr::copy_nonoverlapping(row(group).cast(), to.as_mut_ptr(), width);
            } else {
                let second = 2 * group + 1 < text.len;
                (kernel.numbers)(row(2 * group), width, halves.cast(), Spread::NONE, std::ptr::null_mut());
                if second {
                    (kernel.numbers)(row(2 * group + 1), width, halves.add(dim).cast(), Spread::NONE, std::ptr::null_mut());
                }
                for (column, word) in to[..width].iter_mut().enumerate() {
                    let second = if second { u32::from(*halves.add(dim + column)) << 16 } else { 0 };
                    *word = u32::from(*halves.add(column)) | second;
                }
            }
            to[width..].fill(0);
        }
    }
}
