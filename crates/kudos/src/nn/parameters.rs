//! All parameters of a model in one flat buffer, so that optimizer, checkpoints and clipping are loops.
//!
//! Parameters declared one after the other lie side by side: the query, key and value weights of a
//! layer are three checkpoint tensors and one matrix.

use crate::nn::weights::WeightError;

/// A range of the flat buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

impl Span {
    /// The range as Rust slices want it.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start..self.start + self.len
    }

    /// One span over several that lie side by side.
    ///
    /// # Panics
    /// When they do not.
    pub fn join(spans: &[Span]) -> Span {
        for pair in spans.windows(2) {
            assert_eq!(pair[0].start + pair[0].len, pair[1].start, "joined parameters must be neighbours");
        }
        Span { start: spans[0].start, len: spans.iter().map(|s| s.len).sum() }
    }
}

/// How a parameter starts when no checkpoint has it (transformers' `_init_weights`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Normal with this standard deviation (`initializer_range`): weights.
    Normal(f32),
    /// Zero: biases.
    Zero,
    /// One: scales of norms.
    One,
}

/// One named tensor, without its values.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Name in the checkpoint.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Where its values lie.
    pub span: Span,
    /// How it starts without a checkpoint.
    pub initial: Initial,
    /// Whether weight decay applies: not to biases and norms.
    pub decay: bool,
    /// Whether a step reaches only the rows that its tokens name: the table of words.
    pub sparse: bool,
}

/// The tensors of a model: specs first, values once a checkpoint has been checked against them.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    specs: Vec<ParameterSpec>,
    len: usize,
    /// The values of all specs, end to end; empty until allocated.
    pub values: Vec<f32>,
}

impl Parameters {
    /// Declares the next tensor. Weight decay applies to [`Initial::Normal`] ones.
    ///
    /// # Errors
    /// [`WeightError::TooLarge`] when the element count overflows.
    pub fn declare(&mut self, name: impl Into<String>, shape: &[usize], initial: Initial) -> Result<Span, WeightError> {
        let name = name.into();
        let len = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let total = len.and_then(|len| self.len.checked_add(len)).filter(|total| *total < 1 << 40);
        let (Some(len), Some(total)) = (len, total) else {
            return Err(WeightError::TooLarge { name, shape: shape.to_vec() });
        };
        let span = Span { start: self.len, len };
        let decay = matches!(initial, Initial::Normal(_));
        self.specs.push(ParameterSpec { name, shape: shape.to_vec(), span, initial, decay, sparse: false });
        self.len = total;
        Ok(span)
    }

    /// Declares the table `[vocabulary, width]` that is read by token id. A model has one.
    ///
    /// # Errors
    /// As [`Self::declare`].
    pub fn declare_sparse(
        &mut self,
        name: impl Into<String>,
        shape: &[usize; 2],
        initial: Initial,
    ) -> Result<Span, WeightError> {
        let span = self.declare(name, shape, initial)?;
        self.specs.last_mut().expect("one was just declared").sparse = true;
        Ok(span)
    }

    /// All tensors in declaration order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// Number of elements declared.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before the first declaration.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Allocates the values, all zero. Call once every shape is known to be right.
    pub fn allocate(&mut self) {
        self.values = vec![0.0; self.len];
    }

    /// Fills one tensor as an untrained model has it. The values depend on `seed` and the name alone.
    pub fn initialise(&mut self, index: usize, seed: u64) {
        let spec = &self.specs[index];
        let values = &mut self.values[spec.span.range()];
        match spec.initial {
            Initial::Zero => values.fill(0.0),
            Initial::One => values.fill(1.0),
            Initial::Normal(deviation) => {
                let mut random = crate::random::Stream::named(seed, &spec.name);
                values.iter_mut().for_each(|v| *v = deviation * random.normal() as f32);
            }
        }
    }
}
