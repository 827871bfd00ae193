//! LOWESS without robustness steps (Cleveland 1979): at each place a line is fitted to the nearest two
//! thirds of the points, weighted by the tricube of their distance, and its height there is the curve.
//!
//! The windows are those of statsmodels' `lowess(it=0, delta=0)`, so the heights are too. They are
//! computed at no more than [`ANCHORS`] of the different places and joined by lines.

/// Share of the points that each line is fitted to.
const SHARE: f64 = 2.0 / 3.0;
/// Places at which the curve is computed.
const ANCHORS: usize = 200;

/// A curve as its (x, height) at rising x.
pub(super) struct Curve {
    pub anchors: Vec<(f64, f64)>,
}

impl Curve {
    /// Fits (x, y) points; `None` with fewer than three different x, where there is no curve to see.
    pub fn fit(mut points: Vec<(f64, f64)>) -> Option<Curve> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut places: Vec<f64> = points.iter().map(|p| p.0).collect();
        places.dedup();
        if places.len() < 3 {
            return None;
        }
        let count = places.len().min(ANCHORS);
        let chosen = (0..count).map(|i| places[i * (places.len() - 1) / (count - 1)]);
        let mut window = Window { points: &points, left: 0, right: neighbours(points.len()) };
        Some(Curve { anchors: chosen.map(|x| (x, window.height(x))).collect() })
    }

    /// The height at `x`; beyond the ends, that of the end.
    pub fn at(&self, x: f64) -> f64 {
        let after = self.anchors.partition_point(|anchor| anchor.0 < x);
        match (after.checked_sub(1).map(|before| self.anchors[before]), self.anchors.get(after)) {
            (Some((x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
            (None, Some(&(_, y))) | (Some((_, y)), None) => y,
            (None, None) => f64::NAN, // a curve has anchors
        }
    }
}

/// Points of a window.
fn neighbours(count: usize) -> usize {
    ((SHARE * count as f64 + 1e-10) as usize).clamp(2.min(count), count)
}

/// The points nearest to a place that moves to the right.
struct Window<'a> {
    points: &'a [(f64, f64)],
    left: usize,
    right: usize,
}

impl Window<'_> {
    fn height(&mut self, x: f64) -> f64 {
        while self.right < self.points.len() && x > (self.points[self.left].0 + self.points[self.right].0) / 2.0 {
            self.left += 1;
            self.right += 1;
        }
        let near = &self.points[self.left..self.right];
        let radius = (x - near[0].0).max(near[near.len() - 1].0 - x);
        line_at(x, near, radius)
    }
}

/// Height at `x` of the weighted least-squares line; the mean where all the weight is on one place.
fn line_at(x: f64, near: &[(f64, f64)], radius: f64) -> f64 {
    let weight = |p: &(f64, f64)| match radius > 0.0 {
        true => (1.0 - ((p.0 - x).abs() / radius).powi(3)).powi(3),
        false => 1.0,
    };
    let (mut total, mut sum_x, mut sum_y) = (0.0, 0.0, 0.0);
    for p in near {
        let w = weight(p);
        (total, sum_x, sum_y) = (total + w, sum_x + w * p.0, sum_y + w * p.1);
    }
    let (mean_x, mean_y) = (sum_x / total, sum_y / total);
    let (mut square, mut product) = (0.0, 0.0);
    for p in near {
        let away = weight(p) * (p.0 - mean_x);
        (square, product) = (square + away * (p.0 - mean_x), product + away * (p.1 - mean_y));
    }
    let slope = if square / total < 1e-12 { 0.0 } else { product / square };
    mean_y + slope * (x - mean_x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heights_are_those_of_statsmodels() {
        // statsmodels 0.15.0: lowess(y, x, frac=2/3, it=0)
        let x = [0.5, 1.0, 1.0, 2.0, 2.5, 3.0, 4.5, 5.0, 7.0, 7.5];
        let y = [1.0, 0.0, 2.0, 1.5, 3.0, 2.0, 5.0, 4.0, 2.5, 6.0];
        let curve = Curve::fit(x.into_iter().zip(y).collect()).unwrap();
        let expected = [
            0.8196877955853829,
            1.107760474702331,
            1.866138269401505,
            2.160563882634693,
            2.7324514704083827,
            4.145641134509833,
            4.206815058206824,
            4.379569513152553,
            4.4412817232631845,
        ];
        assert_eq!(curve.anchors.len(), expected.len());
        for ((x, height), expected) in curve.anchors.iter().zip(expected) {
            assert!((height - expected).abs() < 1e-9, "{x}: {height}, expected {expected}");
        }
    }

    #[test]
    fn few_places_have_no_curve() {
        assert!(Curve::fit(Vec::new()).is_none());
        assert!(Curve::fit(vec![(1.0, 2.0), (1.0, 3.0), (2.0, 2.0)]).is_none());
        // Most points on one place: the window there has no width.
        let mut crowd = vec![(1.0, 2.0); 50];
        crowd.extend([(0.0, 1.0), (3.0, 9.0)]);
        let curve = Curve::fit(crowd).unwrap();
        assert!(curve.anchors.iter().all(|a| a.1.is_finite()));
        assert_eq!(curve.at(1.0), 2.0);
    }

    proptest! {
        #[test]
        fn lines_stay_lines(places in prop::collection::vec(0u8..60, 5..80), a in -3i8..3, b in -3i8..3) {
            let line = |x: f64| f64::from(a) + f64::from(b) * x;
            let points: Vec<(f64, f64)> = places.iter().map(|&x| (f64::from(x), line(f64::from(x)))).collect();
            if let Some(curve) = Curve::fit(points) {
                for &place in &places {
                    let (x, found) = (f64::from(place), curve.at(f64::from(place)));
                    // A window of one place has no slope, but its mean is on the line too.
                    prop_assert!((found - line(x)).abs() < 1e-7, "{} {}", found, line(x));
                }
            }
        }
    }
}
