use std::collections::BTreeMap;

/// The percentiles of any number of values in little memory.
///
/// Values are counted in buckets whose bounds grow by a constant factor, so that a percentile is off by at most
/// [`Sketch::ERROR`] of itself, however many values there are and in whatever order they come.
#[derive(Debug, Default)]
pub(crate) struct Sketch {
    /// By bucket; a value v > 0 is in bucket ceil(log v) to the base `growth()`, -v in its mirror image.
    positive: BTreeMap<i32, u64>,
    negative: BTreeMap<i32, u64>,
    zero: u64,
    count: u64,
}

impl Sketch {
    /// How far off a percentile may be, as a share of its value.
    pub(crate) const ERROR: f64 = 0.01;

    /// Counts a value, which must be finite.
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        if value == 0.0 {
            self.zero += 1;
            return;
        }
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        *side.entry((value.abs().ln() / growth().ln()).ceil() as i32).or_default() += 1;
    }

    /// Nearly the smallest value that `percent` of a hundred values do not exceed; `None` if there are no values.
    pub(crate) fn percentile(&self, percent: u32) -> Option<f64> {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100).max(1);
        let ascending = self.negative.iter().rev().map(|(bucket, count)| (-middle(*bucket), *count));
        let ascending = ascending.chain([(0.0, self.zero)]);
        let ascending =
            ascending.chain(self.positive.iter().map(|(bucket, count)| (middle(*bucket), *count)));
        let mut seen = 0;
        for (value, count) in ascending {
            seen += u128::from(count);
            if seen >= rank {
                return Some(value);
            }
        }
        None
    }
}

fn growth() -> f64 {
    (1.0 + Sketch::ERROR) / (1.0 - Sketch::ERROR)
}

/// The value of a bucket that is nearest to all of it, by share.
fn middle(bucket: i32) -> f64 {
    2.0 * growth().powi(bucket) / (growth() + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_the_error_of_the_exact_ones() {
        let mut values: Vec<f64> = (-2_000..3_000).map(|i| f64::from(i).powi(3) / 1e4).collect();
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value));
        values.sort_by(f64::total_cmp);
        for percent in 1..=100 {
            let exact = values[(percent as usize * values.len()).div_ceil(100) - 1];
            let near = sketch.percentile(percent).unwrap();
            assert!(
                (near - exact).abs() <= exact.abs() * Sketch::ERROR + 1e-9,
                "p{percent}: {near} for {exact}"
            );
        }
        assert!(sketch.positive.len() + sketch.negative.len() < 3_000);
        assert_eq!(Sketch::default().percentile(50), None);
    }
}
