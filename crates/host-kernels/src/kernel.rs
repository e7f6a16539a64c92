//! The microkernel compiled: one for each way of multiplying, and which of them serves which element at which level.

use super::dot::Element;
use super::quant::Whole;
use super::simd::BLOCK;
use super::spread::Spread;
use super::tile::{Lines, Panel};
use super::{Level, dot_scalar};
#[cfg(target_arch = "x86_64")]
use super::{dot_avx2, dot_avx512};

/// One way of multiplying. What follows a product knows it by these pointers only, so that nothing else is compiled once for each.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Columns of a panel, at most `PANEL_MOST`.
    pub(super) panel: usize,
    /// Numbers of the operand in four bytes.
    pub(super) group: usize,
    /// What whole numbers may be, for int8.
    pub(super) whole: Option<Whole>,
    /// Rows that are multiplied at once, at most `TILE_MOST`: their sums stay in registers.
    pub(super) tile: usize,
    /// Rows times one panel, into `y` whose rows are `stride` apart.
    ///
    /// # Safety
    /// Operand and panel are in the kernel's form and have as many groups as the panel says; `y` is good for a whole panel in every row; the processor
    /// has the level that the kernel serves.
    pub(super) multiply: unsafe fn(x: Lines, panel: Panel, y: *mut f32, stride: usize),
    /// As `turn`, without the filling; int8 as `quant::row`.
    pub(super) numbers: unsafe fn(x: *const f32, width: usize, to: *mut u8, spread: &Spread, steps: *mut f32),
}

/// The most rows of a tile and the most columns of a panel, of any kernel.
pub(super) const TILE_MOST: usize = 8;
pub(super) const PANEL_MOST: usize = 48;

impl Kernel {
    /// What products of an element are multiplied with at a level.
    pub(super) fn of(level: Level, element: Element) -> &'static Self {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx2Vnni => dot_avx2::kernel(level, element),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 => dot_avx512::kernel(level, element),
            _ => dot_scalar::kernel(element),
        }
    }

    /// The same for attention: panels of keys and of heads are better narrow, and int8 is multiplied as f32.
    pub(super) fn narrow(level: Level, element: Element) -> &'static Self {
        let element = if element == Element::Int8 { Element::F32 } else { element };
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 => dot_avx512::narrow(level, element),
            _ => Self::of(level, element),
        }
    }

    /// Groups, which are words of an operand, that so many numbers take; int8 takes whole blocks.
    pub(super) fn groups(&self, width: usize) -> usize {
        self.whole.map_or(width, |_| width.next_multiple_of(BLOCK)).div_ceil(self.group)
    }

    /// Steps of a row of so many numbers: none but for int8.
    pub(super) fn spans(&self, width: usize) -> usize {
        self.whole.map_or(0, |whole| width.div_ceil(whole.span))
    }

    /// A row of `width` numbers as the words of an operand in f32 or bf16, the last filled up with zeros.
    ///
    /// # Safety
    /// `x` is good for `width` numbers and `to` for as many words as they take; both may be one place if these are whole. The processor has the level
    /// that the kernel serves, which is not one of int8.
    pub(super) unsafe fn turn(&self, x: *const f32, width: usize, to: *mut u32) {
        // SAFETY: the caller's.
        unsafe {
            (width / self.group..self.groups(width)).for_each(|word| *to.add(word) = 0);
            (self.numbers)(x, width, to.cast(), Spread::NONE, std::ptr::null_mut());
        }
    }
}

/// `kernel!("features", numbers, Dot, VECTORS x [TILE .. 1])`: a `Kernel` with panels of so many vectors, whose rows are taken in tiles of these sizes.
macro_rules! kernel {
    ($($features:literal,)? $numbers:ident, $dot:ty, $vectors:literal x [$($rows:literal)+]) => {{
        use crate::dot::Dot;
        use crate::kernel::{Kernel, PANEL_MOST, TILE_MOST};
        use crate::simd::Simd;
        use crate::spread::Spread;
        use crate::tile::{Lines, Panel, tile};
        $(#[target_feature(enable = $features)])?
        unsafe fn multiply(mut x: Lines, mut panel: Panel, mut y: *mut f32, stride: usize) {
            $(while x.count >= $rows {
                // SAFETY: the caller's, for these rows.
                unsafe { tile::<$dot, $rows, $vectors>(x, panel, y, stride) };
                (x, y) = (x.skip($rows), y.wrapping_add($rows * stride));
                panel.ahead = panel.ahead.after(panel.groups, $vectors * <<$dot as Dot>::S as Simd>::LANES);
            })+
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn numbers(x: *const f32, width: usize, to: *mut u8, spread: &Spread, steps: *mut f32) {
            // SAFETY: the caller's.
            unsafe { $numbers::<$dot>(x, width, to, spread, steps) }
        }
        let (panel, tile) = ($vectors * <<$dot as Dot>::S as Simd>::LANES, [$($rows),+][0]);
        assert!(panel <= PANEL_MOST && tile <= TILE_MOST);
        Kernel { panel, group: <$dot as Dot>::GROUP, whole: <$dot as Dot>::WHOLE, tile, multiply, numbers }
    }};
}
pub(super) use kernel;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot::to_bf16;
    use crate::testing::{cpus, numbers};

    #[test]
    fn bf16_is_rounded_the_same_at_every_level_and_a_row_is_filled_up() {
        let (least, ties) = (f32::MIN_POSITIVE, [0x3f80_8000, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0x7f7f_ffff].map(f32::from_bits));
        let special = [0., -0., least, -least, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::from_bits(0xff80_0001), f32::from_bits(0x7fff_ffff)];
        let x = [&special[..], &ties, &numbers(1, 23)].concat();
        let want: Vec<u16> = x.iter().map(|x| to_bf16(*x)).chain([0]).collect();
        for cpu in cpus() {
            let (kernel, mut words) = (Kernel::of(cpu.level(), Element::Bf16), vec![u32::MAX; x.len().div_ceil(2)]);
            // SAFETY: there are words for all numbers, which are an odd number.
            unsafe { kernel.turn(x.as_ptr(), x.len(), words.as_mut_ptr()) };
            let got: Vec<u16> = words.iter().flat_map(|word| [*word as u16, (word >> 16) as u16]).collect();
            assert_eq!(got, want, "{:?}", cpu.level());
        }
    }
}
