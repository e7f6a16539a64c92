//! What a processor can do: the levels of the kernels, their names, and what a machine lacks of one.

use std::fmt;
use std::str::FromStr;

/// What the processor can do. Each level runs every kernel, and has all that the levels before it have, but for what `Avx2Vnni` brings: that is of
/// processors without AVX-512. There is no processor with BF16 and without VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// One number at a time: runs anywhere, slowly. The reference.
    Scalar,
    /// Eight numbers at a time, with fused multiply-add.
    Avx2,
    /// With four products of int8 at once (AVX-VNNI: Alder Lake, Sierra Forest and later).
    Avx2Vnni,
    /// Sixteen numbers at a time (F, BW, VL, DQ: Skylake-X and later).
    Avx512,
    /// With four products of int8 at once (Cascade Lake, Ice Lake and later).
    Avx512Vnni,
    /// With two products of bf16 at once too (Cooper Lake, Sapphire Rapids, Zen 4 and later).
    Avx512Bf16,
}

impl Level {
    /// Every level, the least first.
    pub const ALL: [Self; 6] = [Self::Scalar, Self::Avx2, Self::Avx2Vnni, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16];

    /// The best level of this machine beyond `Scalar`; `None` if there is none, and candle's own operations are the better choice.
    pub fn best() -> Option<Self> {
        Self::ALL.into_iter().rev().find(|level| *level > Self::Scalar && level.is_here())
    }

    /// Whether this machine has it.
    pub fn is_here(self) -> bool {
        self.lacks().is_empty()
    }

    /// The features, as Linux names them in `/proc/cpuinfo`, that the level needs and this machine lacks.
    pub fn lacks(self) -> Vec<&'static str> {
        features().into_iter().filter(|(least, _, here)| self.includes(*least) && !here).map(|(_, name, _)| name).collect()
    }

    /// Whether it has what came with another level.
    fn includes(self, other: Self) -> bool {
        other == self || other < self && other != Self::Avx2Vnni
    }

    /// As `--cpu-level` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx2Vnni => "avx2-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// Whether the processor multiplies bf16 itself, twice as fast as f32.
    pub fn has_bf16(self) -> bool {
        self >= Self::Avx512Bf16
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| format!("`{text}` is not a level: say auto, {names}"))
    }
}

/// The least level that needs a feature, its name, and whether it is here.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<(Level, &'static str, bool)> {
    vec![
        (Level::Avx2, "avx2", is_x86_feature_detected!("avx2")),
        (Level::Avx2, "fma", is_x86_feature_detected!("fma")),
        (Level::Avx2Vnni, "avx_vnni", is_x86_feature_detected!("avxvnni")),
        (Level::Avx512, "avx512f", is_x86_feature_detected!("avx512f")),
        (Level::Avx512, "avx512bw", is_x86_feature_detected!("avx512bw")),
        (Level::Avx512, "avx512vl", is_x86_feature_detected!("avx512vl")),
        (Level::Avx512, "avx512dq", is_x86_feature_detected!("avx512dq")),
        (Level::Avx512Vnni, "avx512_vnni", is_x86_feature_detected!("avx512vnni")),
        (Level::Avx512Bf16, "avx512_bf16", is_x86_feature_detected!("avx512bf16")),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<(Level, &'static str, bool)> {
    vec![(Level::Avx2, "x86-64", false)]
}

/// Proof that a level is there: only `Cpu::new` makes one, so kernels need not ask again.
#[derive(Debug, Clone, Copy)]
pub struct Cpu(Level);

impl Cpu {
    /// The level, if this machine has it.
    pub fn new(level: Level) -> Option<Self> {
        level.is_here().then_some(Self(level))
    }

    /// The best level of this machine, if it is worth more than candle's own operations.
    pub fn best() -> Option<Self> {
        Level::best().and_then(Self::new)
    }

    /// Which level it is.
    pub fn level(self) -> Level {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_build_on_each_other_and_are_named() {
        for (index, level) in Level::ALL.into_iter().enumerate() {
            for before in &Level::ALL[..index] {
                assert!(
                    *before < level && (*before == Level::Avx2Vnni || before.lacks().iter().all(|lacked| level.lacks().contains(lacked))),
                    "{before} {level}"
                );
            }
        }
        assert!(Level::Scalar.is_here() && Level::best().is_none_or(|best| best > Level::Scalar && best.is_here()));
        assert_eq!(Level::best().is_some(), Level::Avx2.is_here());
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert!(!level.is_here() || Level::best() >= Some(level).filter(|level| *level > Level::Scalar));
            assert_eq!(Cpu::new(level).map(Cpu::level), level.is_here().then_some(level));
        }
        assert!("avx1".parse::<Level>().unwrap_err().contains("auto, scalar, avx2, avx2-vnni, avx512, avx512-vnni, avx512-bf16"));
    }
}
