//! From handles on weights to the kernels' own forms.

use crate::exec::weights::{numbers, rows};
use crate::kernels::host::norm::Norm;
use crate::kernels::host::pack::Packed;
use crate::kernels::host::{Act, Cpu, Element, team};
use crate::network::{self, Activation, Linear, LoadError, NormKind, Weight};
use std::sync::{Mutex, PoisonError};

/// A norm's numbers.
pub(super) fn norm(norm: &network::Norm) -> Result<Norm, LoadError> {
    let mut weight = numbers(&norm.weight)?;
    if norm.kind == NormKind::RmsPlusOne {
        weight.iter_mut().for_each(|weight| *weight += 1.);
    }
    let bias = norm.bias.as_ref().map(numbers).transpose()?.unwrap_or_else(|| vec![0.; weight.len()]);
    Ok(Norm { weight, bias, eps: norm.eps as f32, centred: norm.kind == NormKind::Layer })
}

/// Bytes that a norm occupies.
pub(super) fn norm_bytes(norm: &Norm) -> usize {
    (norm.weight.len() + norm.bias.len()) * size_of::<f32>()
}

/// What weights are packed for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) cpu: Cpu,
    pub(super) element: Element,
}

impl Form {
    /// The same in f32, for what is too small to be worth less, or decides too much.
    pub(super) fn exact(self) -> Self {
        Self { element: Element::F32, ..self }
    }
}

/// What `make` makes of each number below `count`, in order; on all threads, for weights take their time to pack.
pub(super) fn each<T: Send>(count: usize, make: impl Fn(usize) -> Result<T, LoadError> + Sync) -> Result<Vec<T>, LoadError> {
    let made: Vec<Mutex<Option<Result<T, LoadError>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    // Each is locked once, for the moment of putting there what has been made.
    team().each(count, &|index| {
        let one = make(index);
        *made[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(one);
    });
    made.into_iter().filter_map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// A linear map, packed.
pub(super) fn linear(linear: &Linear, form: Form) -> Result<Packed, LoadError> {
    stack(&[linear], form)
}

/// Maps of one input as one, in order; a bias that one of them lacks is zero. Row by row out of the file into the panels.
pub(super) fn stack(maps: &[&Linear], form: Form) -> Result<Packed, LoadError> {
    let size = |map: &&Linear| (map.weight.shape()[0], map.weight.shape()[1]);
    let (columns, inner) = (maps.iter().map(|map| size(map).0).sum(), maps.first().map_or(0, |map| size(map).1));
    let (mut packed, mut first) = (Packed::zeros(form.cpu, form.element, columns, inner), 0);
    for map in maps {
        rows(&map.weight, |row, numbers| packed.put(first + row, numbers))?;
        if let Some(bias) = &map.bias {
            packed.put_bias(first, &numbers(bias)?);
        }
        first += size(map).0;
    }
    Ok(packed)
}

/// A map without bias, stored as a `Linear`'s, packed.
pub(super) fn weight(weight: &Weight, form: Form) -> Result<Packed, LoadError> {
    linear(&Linear::new(weight.clone(), None), form)
}

/// A map stored `[in, out]`, packed.
pub(super) fn transposed(weight: &Weight, form: Form) -> Result<Packed, LoadError> {
    Ok(Packed::transposed(form.cpu, form.element, &numbers(weight)?, weight.shape()[1]))
}

/// An activation as the kernels name it.
pub(super) fn act(activation: Activation) -> Act {
    match activation {
        Activation::Identity => Act::Identity,
        Activation::Gelu => Act::Gelu,
        Activation::GeluTanh => Act::GeluTanh,
        Activation::Relu => Act::Relu,
        Activation::Sigmoid => Act::Sigmoid,
        Activation::Silu => Act::Silu,
        Activation::Tanh => Act::Tanh,
    }
}
