//! From a model's rows to the vectors a client asked for: cut to `dimensions`, then to unit length. Pure.

/// What becomes of each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Native size of a row.
    pub native: usize,
    /// Values kept: `1..=native`.
    pub wanted: usize,
    /// Scale to unit length (after the cut).
    pub unit: bool,
    /// Before a cut, subtract the row's mean and divide by its standard deviation, as some models' cards do.
    pub layer_norm: bool,
}

/// The same rows, cut and scaled; the second value counts rows that are all zero and stay so.
pub fn finish(mut rows: Vec<f32>, shape: Shape) -> (Vec<f32>, usize) {
    let Shape { native, wanted, unit, layer_norm } = shape;
    if native == 0 || wanted == 0 || wanted > native {
        return (rows, 0);
    }
    let texts = rows.len() / native;
    if wanted < native {
        if layer_norm {
            rows.chunks_exact_mut(native).for_each(to_standard);
        }
        for text in 1..texts {
            rows.copy_within(text * native..text * native + wanted, text * wanted);
        }
        rows.truncate(texts * wanted);
    }
    let zeros = if unit {
        rows.chunks_exact_mut(wanted).map(to_unit_length).filter(|scaled| !scaled).count()
    } else {
        rows.chunks_exact(wanted).filter(|row| row.iter().all(|value| *value == 0.)).count()
    };
    (rows, zeros)
}

/// Layer norm without weights: `(x - mean) / sqrt(variance + 1e-5)`, the torch function's default.
fn to_standard(row: &mut [f32]) {
    let mean_of = |sum: f64| sum / row.len() as f64;
    let mean = mean_of(row.iter().map(|&value| f64::from(value)).sum());
    let variance = mean_of(row.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum());
    let scale = (variance + 1e-5).sqrt();
    row.iter_mut().for_each(|value| *value = ((f64::from(*value) - mean) / scale) as f32);
}

/// Divides by the L2 norm. An all-zero row has none and stays as it is: false.
fn to_unit_length(row: &mut [f32]) -> bool {
    // In f64, so that neither squares of large values overflow nor those of small ones vanish.
    let norm = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return false;
    }
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_cut_before_they_are_scaled() {
        let (rows, zeros) = finish(vec![3.0, 4.0, 100.0, 0.0, 0.0, 7.0], Shape { native: 3, wanted: 2, unit: true, layer_norm: false });
        assert_eq!((rows, zeros), (vec![0.6, 0.8, 0.0, 0.0], 1));
    }

    #[test]
    fn as_the_model_gives_them_means_untouched() {
        let rows = vec![3.0, 4.0, 5.0, 6.0];
        assert_eq!(finish(rows.clone(), Shape { native: 2, wanted: 2, unit: false, layer_norm: true }), (rows, 0));
    }

    #[test]
    fn a_layer_norm_sees_the_whole_row_and_only_where_it_is_cut() {
        // Mean 2.5, variance 1.25.
        let (rows, _) = finish(vec![1.0, 2.0, 3.0, 4.0], Shape { native: 4, wanted: 2, unit: false, layer_norm: true });
        let scale = 1.250_01_f64.sqrt();
        for (value, expected) in rows.iter().zip([-1.5 / scale, -0.5 / scale]) {
            assert!((f64::from(*value) - expected).abs() < 1e-6, "{rows:?}");
        }
        let (unit, _) = finish(vec![1.0, 2.0, 3.0, 4.0], Shape { native: 4, wanted: 2, unit: true, layer_norm: true });
        assert!((f64::from(unit[0]) / f64::from(unit[1]) - 3.0).abs() < 1e-6, "{unit:?}");
    }

    proptest! {
        #[test]
        fn unit_rows_have_length_one_and_the_direction_of_the_prefix(
            rows in prop::collection::vec(prop::num::f32::NORMAL, 12), wanted in 1usize..=4,
        ) {
            let (out, zeros) = finish(rows.clone(), Shape { native: 4, wanted, unit: true, layer_norm: false });
            prop_assert_eq!((out.len(), zeros), (3 * wanted, 0));
            for (before, after) in rows.chunks(4).zip(out.chunks(wanted)) {
                let norm: f64 = after.iter().map(|v| f64::from(*v).powi(2)).sum();
                prop_assert!((norm - 1.0).abs() < 1e-6);
                let dot: f64 = before.iter().zip(after).map(|(b, a)| f64::from(*b) * f64::from(*a)).sum();
                let length: f64 = before[..wanted].iter().map(|b| f64::from(*b).powi(2)).sum::<f64>().sqrt();
                prop_assert!((dot / length - 1.0).abs() < 1e-6);
            }
        }
    }
}
