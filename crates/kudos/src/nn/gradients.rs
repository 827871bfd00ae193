//! The gradient of all trained parameters in one buffer of their own.
//!
//! Nothing is cleared between steps: the first contribution to a parameter replaces what is there, later ones are
//! added. Of the table of words only the rows that the step's tokens name are touched.

use super::parameters::{ParameterSpec, Parameters, Span};
use super::trained::Trained;
use kernels::gemm::Store;
use kernels::reduce::{sum_of_squares, sum_of_squares_of_rows};

/// Gradients of one optimizer step.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    values: Vec<f32>,
    trained: Trained,
    /// What has been written in this step.
    written: Vec<Span>,
    rows: Option<Rows>,
    /// Where the place begins that all layers share; none, if each has its own.
    layers: Option<usize>,
}

/// The table whose gradient is zero but for the rows of the step's tokens.
#[derive(Clone, Debug)]
struct Rows {
    span: Span,
    width: usize,
    /// Rows of this step, distinct and in order.
    touched: Vec<u32>,
}

impl Gradients {
    /// All zero, for these parameters.
    pub fn new(parameters: &Parameters) -> Self {
        let trained = parameters.trained();
        let sparse = parameters.specs().iter().find(|spec| spec.sparse && spec.trained);
        let rows = |spec: &ParameterSpec| {
            Some(Rows { span: trained.place(spec.span)?, width: spec.shape[1], touched: Vec::new() })
        };
        let rows = sparse.and_then(rows);
        Self { values: vec![0.0; trained.len()], trained, written: Vec::new(), rows, layers: None }
    }

    /// As [`Self::new`], with one place for all layers, of which each is used up ([`Self::finish_layer`], [`Self::next_layer`])
    /// before another is written.
    pub fn by_layer(parameters: &Parameters) -> Self {
        let (trained, layers) = Trained::by_layer(parameters.specs());
        let sparse = parameters.specs().iter().find(|spec| spec.sparse && spec.trained);
        let rows = |spec: &ParameterSpec| {
            Some(Rows { span: trained.place(spec.span)?, width: spec.shape[1], touched: Vec::new() })
        };
        let rows = sparse.and_then(rows);
        Self { values: vec![0.0; trained.len()], trained, written: Vec::new(), rows, layers: Some(layers) }
    }

    /// Whether all layers share one place.
    pub fn is_by_layer(&self) -> bool {
        self.layers.is_some()
    }

    /// Ends the gradient of a layer: parameters that nothing wrote have none. Gives the sum of its squares.
    ///
    /// # Panics
    /// When each layer has a place of its own.
    pub fn finish_layer(&mut self) -> f64 {
        let start = self.layers.expect("layers share a place");
        let mut written: Vec<Span> = self.written.iter().copied().filter(|span| span.start >= start).collect();
        written.sort_by_key(|span| span.start);
        let mut end = start;
        for span in &written {
            self.values[end..span.start].fill(0.0);
            end = span.start + span.len;
        }
        self.values[end..].fill(0.0);
        sum_of_squares(&self.values[start..])
    }

    /// Makes the place of the layers free for the next one.
    pub fn next_layer(&mut self) {
        let start = self.layers.unwrap_or(usize::MAX);
        self.written.retain(|span| span.start < start);
    }

    /// The gradient of a parameter; `None` where it is not trained.
    pub fn of(&self, span: Span) -> Option<&[f32]> {
        Some(&self.values[self.trained.place(span)?.range()])
    }

    /// Begins a step.
    pub fn start(&mut self) {
        self.written.clear();
        if let Some(rows) = &mut self.rows {
            for row in rows.touched.drain(..) {
                let start = rows.span.start + row as usize * rows.width;
                self.values[start..start + rows.width].fill(0.0);
            }
        }
    }

    /// Ends a step: parameters that nothing wrote have no gradient.
    pub fn finish(&mut self) {
        self.written.extend(self.rows.iter().map(|rows| rows.span));
        self.written.sort_by_key(|span| span.start);
        let mut end = 0;
        for span in &self.written {
            self.values[end..span.start].fill(0.0);
            end = span.start + span.len;
        }
        self.values[end..].fill(0.0);
    }

    /// The gradients of neighbouring concerns (a weight and its bias), and whether to replace or add; `None` where they are
    /// not trained.
    ///
    /// # Panics
    /// When some of them are trained and others are not.
    pub(super) fn spans<const N: usize>(&mut self, spans: [Span; N]) -> Option<([&mut [f32]; N], Store)> {
        let places = spans.map(|span| self.trained.place(span));
        places[0]?;
        let spans = places.map(|place| place.expect("a weight and its bias are trained together"));
        let store = match self.written.contains(&spans[0]) {
            true => Store::Add,
            false => Store::Replace,
        };
        if store == Store::Replace {
            self.written.extend(spans.into_iter().filter(|span| span.len > 0)); // A layer may have no bias.
        }
        let ranges = spans.map(Span::range);
        Some((self.values.get_disjoint_mut(ranges).expect("two parameters do not overlap"), store))
    }

    /// The gradient of an embedding table that will get these rows added; `None` where it is not trained.
    pub(super) fn table(&mut self, span: Span, ids: &[u32]) -> Option<&mut [f32]> {
        let place = self.trained.place(span)?;
        match &mut self.rows {
            Some(rows) if rows.span == place => {
                rows.touched.extend_from_slice(ids);
                rows.touched.sort_unstable();
                rows.touched.dedup();
                Some(&mut self.values[place.range()])
            }
            _ => {
                let ([table], store) = self.spans([span])?;
                if store == Store::Replace {
                    table.fill(0.0);
                }
                Some(table)
            }
        }
    }

    /// All values, as [`Parameters::trained`] places them: in the parameters' own layout where all are trained.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Rows of the sparse table that have a gradient; none without such a table.
    pub fn touched(&self) -> &[u32] {
        self.rows.as_ref().map_or(&[], |rows| &rows.touched)
    }

    /// Euclidean norm over all parameters.
    pub fn norm(&self) -> f64 {
        let Some(Rows { span, width, touched }) = &self.rows else { return sum_of_squares(&self.values).sqrt() };
        let (before, rest) = self.values.split_at(span.start);
        let (table, after) = rest.split_at(span.len);
        (sum_of_squares(before) + sum_of_squares_of_rows(table, *width, touched) + sum_of_squares(after)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Initial;

    #[test]
    fn the_first_write_replaces_and_untouched_parameters_are_zero() {
        let mut parameters = Parameters::default();
        let words = parameters.declare_sparse("words", &[4, 2], Initial::Zero).unwrap();
        let [a, b] = ["a", "b"].map(|name| parameters.declare(name, &[2], Initial::Zero).unwrap());
        let mut gradients = Gradients::new(&parameters);
        gradients.start();
        assert_eq!(gradients.spans([a]).unwrap().1, Store::Replace);
        gradients.spans([a]).unwrap().0[0].copy_from_slice(&[3.0, 0.0]);
        assert_eq!(gradients.spans([a]).unwrap().1, Store::Add);
        gradients.spans([b]).unwrap().0[0].fill(9.0);
        gradients.table(words, &[3, 1, 3]).unwrap()[6..].fill(2.0);
        gradients.finish();
        assert_eq!(gradients.touched(), [1, 3]);
        assert!((gradients.norm().powi(2) - (9.0 + 162.0 + 8.0)).abs() < 1e-9);

        gradients.start();
        gradients.spans([a]).unwrap().0[0].fill(1.0);
        gradients.table(words, &[0]).unwrap()[0] = 1.0;
        gradients.finish();
        assert_eq!(gradients.values(), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    }

    /// What is not trained takes no memory, and what is lies as if the rest were not there.
    #[test]
    fn frozen_parameters_have_no_gradient() {
        let mut parameters = Parameters::default();
        let words = parameters.declare_sparse("words", &[4, 2], Initial::Zero).unwrap();
        let [a, b] = ["a", "b"].map(|name| parameters.declare(name, &[2], Initial::Zero).unwrap());
        parameters.freeze(|spec| spec.name == "a" || spec.sparse);
        let mut gradients = Gradients::new(&parameters);
        gradients.start();
        assert!(gradients.spans([a]).is_none() && gradients.table(words, &[1]).is_none());
        gradients.spans([b]).unwrap().0[0].copy_from_slice(&[3.0, 4.0]);
        gradients.finish();
        assert_eq!((gradients.values(), gradients.norm()), ([3.0, 4.0].as_slice(), 5.0));
    }
}
