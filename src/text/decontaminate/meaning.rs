//! Scores of vectors, and the threshold that is measured on pairs.
//!
//! A text has two vectors, one of the whole and one of what it says in words (docstrings, prose); two texts are
//! as near as the mean of both cosines. Some items are near to everything of their kind: what an item has in
//! common with texts that have nothing to do with it (the *background*) is taken off its score.

/// A text as a model sees it; each vector is one long.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub whole: Vec<f32>,
    pub said: Vec<f32>,
}

impl View {
    fn near(&self, other: &View) -> f64 {
        f64::midpoint(cosine(&self.whole, &other.whole), cosine(&self.said, &other.said))
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
}

/// Items to compare texts with.
pub struct Items {
    /// Each with its mean nearness to the background.
    items: Vec<(View, f64)>,
    /// Texts of the background.
    background: f64,
}

impl Items {
    pub fn new(items: Vec<View>, background: &[View]) -> Items {
        let mean = |item: &View| {
            background.iter().map(|text| item.near(text)).sum::<f64>() / background.len().max(1) as f64
        };
        let items = items.into_iter().map(|item| {
            let mean = mean(&item);
            (item, mean)
        });
        Items { items: items.collect(), background: background.len() as f64 }
    }

    /// The nearest item and its score.
    pub fn nearest(&self, text: &View) -> Option<(usize, f64)> {
        let scores =
            self.items.iter().enumerate().map(|(number, (item, mean))| (number, item.near(text) - mean));
        scores.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The best score that a text of the background would have if it were not one.
    fn best_without(&self, text: &View) -> Option<f64> {
        let scores = self.items.iter().map(|(item, mean)| {
            let near = item.near(text);
            near - (mean * self.background - near) / (self.background - 1.0).max(1.0)
        });
        scores.max_by(f64::total_cmp)
    }

    fn score(&self, number: usize, text: &View) -> Option<f64> {
        let (item, mean) = self.items.get(number)?;
        Some(item.near(text) - mean)
    }
}

/// A threshold and what was measured with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    pub threshold: f64,
    /// The share of the pairs that are at or above the threshold.
    pub recall: f64,
    pub pairs: usize,
    /// The share of the texts without a pair that are, with the user's own items.
    pub false_positives: f64,
    pub negatives: usize,
}

/// Finds the threshold that a share `wanted` of texts without a pair is expected to reach. `items` are those
/// that will be searched; `negatives` have nothing to do with them; each of `pairs` is a text and the same in
/// other words.
///
/// So few texts cannot show a share of some thousandths: the best scores of the negatives are taken for draws from
/// a normal distribution, and the threshold is the upper limit that its tail has with a confidence of 75 % (the
/// one-sided tolerance limit, in Jennett and Welch's approximation of 1939).
pub fn calibrate(
    items: &Items,
    pairs: &[(View, View)],
    negatives: &[View],
    wanted: f64,
) -> Option<Calibration> {
    let best: Vec<f64> = negatives.iter().filter_map(|text| items.best_without(text)).collect();
    if best.len() < 2 || pairs.is_empty() {
        return None;
    }
    let count = best.len() as f64;
    let mean = best.iter().sum::<f64>() / count;
    let deviation = (best.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
    let tail_at = tail(wanted);
    let uncertain = tail(0.25) * (1.0 / count + tail_at * tail_at / (2.0 * count)).sqrt();
    let threshold = mean + deviation * (tail_at + uncertain);
    let originals = Items::new(pairs.iter().map(|(text, _)| text.clone()).collect(), negatives);
    let found = pairs.iter().enumerate();
    let found = found.filter(|(number, (_, other))| {
        originals.score(*number, other).is_some_and(|score| score >= threshold)
    });
    let wrong = best.iter().filter(|score| **score >= threshold).count();
    Some(Calibration {
        threshold,
        recall: found.count() as f64 / pairs.len() as f64,
        pairs: pairs.len(),
        false_positives: wrong as f64 / count,
        negatives: best.len(),
    })
}

/// How many deviations above the mean of a normal distribution the share `p` of it begins (Abramowitz and Stegun
/// 1964, 26.2.23; the error is below 0.00045).
fn tail(p: f64) -> f64 {
    let p = p.clamp(1e-9, 0.5);
    let t = (-2.0 * p.ln()).sqrt();
    t - (2.515_517 + t * (0.802_853 + t * 0.010_328))
        / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(angle: f64) -> View {
        let vector = vec![angle.cos() as f32, angle.sin() as f32];
        View { whole: vector.clone(), said: vector }
    }

    #[test]
    fn the_background_is_taken_off() {
        let items = Items::new(vec![view(0.0), view(1.5)], &[view(0.1), view(-0.1)]);
        let (number, score) = items.nearest(&view(0.8)).unwrap();
        // Both are as near, and the first is near to everything.
        assert_eq!(number, 1);
        assert!((score - (0.7_f64.cos() - (1.4_f64.cos() + 1.6_f64.cos()) / 2.0)).abs() < 1e-6);
        assert_eq!(Items::new(Vec::new(), &[]).nearest(&view(0.0)), None);
    }

    #[test]
    fn tails_are_those_of_the_tables() {
        for (p, expected) in [(0.5, 0.0), (0.05, 1.6449), (0.005, 2.5758), (0.001, 3.0902)] {
            assert!((tail(p) - expected).abs() < 1e-3, "{p}");
        }
    }

    #[test]
    fn the_threshold_lets_few_negatives_through() {
        let negatives: Vec<View> = (0..200).map(|index| view(2.0 + f64::from(index) * 0.005)).collect();
        let items = Items::new(vec![view(0.0), view(0.7)], &negatives);
        let pairs = [(view(0.0), view(0.05)), (view(0.5), view(0.45)), (view(0.2), view(2.5))];
        let found = calibrate(&items, &pairs, &negatives, 0.005).unwrap();
        assert!(found.false_positives <= 0.01, "{found:?}");
        assert!((found.recall - 2.0 / 3.0).abs() < 1e-9, "{found:?}");
        assert!(calibrate(&items, &pairs, &negatives, 0.1).unwrap().threshold < found.threshold);
        assert_eq!(calibrate(&items, &[], &negatives, 0.005), None);
        assert_eq!(calibrate(&Items::new(Vec::new(), &[]), &pairs, &negatives, 0.005), None);
    }
}
