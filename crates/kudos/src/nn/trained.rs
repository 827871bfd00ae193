//! Where the trained parameters lie in buffers that hold them alone: gradients, moments, checkpoints.

use super::parameters::{ParameterSpec, Role, Span};
use std::ops::Range;

/// The places of the trained parameters, end to end in the order of their declaration.
#[derive(Clone, Debug, Default)]
pub struct Trained {
    runs: Vec<Run>,
    len: usize,
}

/// Trained parameters that lie side by side.
#[derive(Clone, Debug)]
struct Run {
    /// In the flat buffer.
    flat: Range<usize>,
    /// Where they begin here.
    start: usize,
}

impl Trained {
    /// Those of the specs that are trained.
    pub(super) fn of(specs: &[ParameterSpec]) -> Self {
        let mut trained = Self::default();
        for spec in specs.iter().filter(|spec| spec.trained) {
            let flat = spec.span.range();
            match trained.runs.last_mut().filter(|run| run.flat.end == flat.start) {
                Some(run) => run.flat.end = flat.end,
                None => trained.runs.push(Run { flat, start: trained.len }),
            }
            trained.len += spec.span.len;
        }
        trained
    }

    /// As [`Self::of`], with one place for all layers, which is as long as the largest and lies behind the rest. Gives where that
    /// begins.
    pub(super) fn by_layer(specs: &[ParameterSpec]) -> (Self, usize) {
        let is_layer = |spec: &&ParameterSpec| matches!(spec.role, Role::Layer(_));
        let trained = || specs.iter().filter(|spec| spec.trained);
        let layers = trained().filter(|spec| !is_layer(spec)).map(|spec| spec.span.len).sum();
        let (mut own, mut rest, mut role) = (Self { len: layers, ..Self::default() }, 0, None);
        let mut within = layers;
        for spec in trained() {
            let next = if is_layer(&spec) { &mut within } else { &mut rest };
            if role != Some(spec.role) && is_layer(&spec) {
                *next = layers;
            }
            role = Some(spec.role);
            let (flat, start) = (spec.span.range(), *next);
            *next += spec.span.len;
            own.len = own.len.max(*next);
            let joins = |run: &&mut Run| run.flat.end == flat.start && run.start + run.flat.len() == start;
            match own.runs.last_mut().filter(joins) {
                Some(run) => run.flat.end = flat.end,
                None => own.runs.push(Run { flat, start }),
            }
        }
        (own, layers)
    }

    /// Number of trained values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where a span of the flat buffer lies here; `None` for one that is not trained.
    ///
    /// # Panics
    /// When only a part of it is trained: parameters that are used as one are trained together.
    pub fn place(&self, span: Span) -> Option<Span> {
        if span.len == 0 {
            return Some(Span { start: 0, len: 0 });
        }
        let (from, to) = (span.start, span.start + span.len);
        let run = self.runs.get(self.runs.partition_point(|run| run.flat.end <= from))?;
        if to <= run.flat.start {
            return None;
        }
        assert!(run.flat.start <= from && to <= run.flat.end, "parameters that are used as one are trained together");
        Some(Span { start: run.start + from - run.flat.start, len: span.len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Initial, Parameters};

    fn parameters(frozen: &[&str]) -> (Parameters, Vec<Span>) {
        let mut parameters = Parameters::default();
        let spans = ["a", "b", "c", "d"].map(|name| parameters.declare(name, &[2, 3], Initial::Zero).unwrap());
        parameters.freeze(|spec| frozen.contains(&spec.name.as_str()));
        (parameters, spans.to_vec())
    }

    #[test]
    fn trained_parameters_lie_end_to_end() {
        let start = |trained: &Trained, span: Span| trained.place(span).map(|place| place.start);
        let (all, spans) = parameters(&[]);
        let all = all.trained();
        assert_eq!(all.len(), 24);
        assert!(spans.iter().all(|span| all.place(*span) == Some(*span)), "nothing moves where all is trained");
        let (some, _) = parameters(&["a", "c"]);
        let some = some.trained();
        assert_eq!(some.len(), 12);
        assert_eq!(spans.iter().map(|span| start(&some, *span)).collect::<Vec<_>>(), [None, Some(0), None, Some(6)]);
        let part = Span { start: 20, len: 3 };
        assert_eq!(some.place(part), Some(Span { start: 8, len: 3 }), "a part of a tensor");
        assert_eq!(some.place(Span { start: 1 << 41, len: 6 }), None, "what is packed is not trained");
    }

    #[test]
    fn layers_take_turns_in_one_place() {
        let mut parameters = Parameters::default();
        let mut declare = |role, len: usize| {
            parameters.begin(role);
            parameters.declare(format!("{role:?} {len}"), &[len], Initial::Zero).unwrap()
        };
        let spans = [
            declare(Role::Embedding, 5),
            declare(Role::Layer(0), 3),
            declare(Role::Layer(0), 4),
            declare(Role::Layer(1), 2),
            declare(Role::Layer(1), 6),
            declare(Role::Output, 1),
        ];
        let (trained, layers) = Trained::by_layer(parameters.specs());
        assert_eq!((trained.len(), layers), (14, 6));
        let starts: Vec<usize> = spans.iter().map(|span| trained.place(*span).unwrap().start).collect();
        assert_eq!(starts, [0, 6, 9, 6, 8, 5]);
        assert_eq!(
            trained.place(Span::join(&spans[1..3])),
            Some(Span { start: 6, len: 7 }),
            "a product of two tensors"
        );
    }

    #[test]
    #[should_panic(expected = "trained together")]
    fn a_product_is_not_trained_in_part() {
        let (some, spans) = parameters(&["a"]);
        some.trained().place(Span::join(&spans[..2]));
    }
}
