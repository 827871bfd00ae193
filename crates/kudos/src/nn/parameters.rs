//! All parameters of a model in one flat buffer, so that optimizer, checkpoints and clipping are loops.
//!
//! Parameters declared one after the other lie side by side: the query, key and value weights of a
//! layer are three checkpoint tensors and one matrix.
//!
//! A weight that is only kept packed has no place in the buffer. Its span counts from [`PACKED`] on, so it still names
//! the tensor and joins with its neighbours; reading the buffer there panics instead of giving zeros.

use super::trained::Trained;
use crate::nn::weights::WeightError;
use std::borrow::Cow;

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

/// Where the spans of packed weights begin: behind any buffer, which has fewer than 2^40 values.
const PACKED: usize = 1 << 41;

/// Where the values of a parameter are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In the flat buffer.
    #[default]
    Flat,
    /// Packed for the kernels, and nowhere else.
    Packed,
}

/// How a parameter starts when no checkpoint has it (transformers' `_init_weights`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Normal with this standard deviation (`initializer_range`): weights.
    Normal(f32),
    /// Uniform between this and its negative: weights that are new to a trained model.
    Uniform(f32),
    /// Zero: biases.
    Zero,
    /// One: scales of norms.
    One,
}

/// How a checkpoint stores the values of a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As the buffer has them.
    #[default]
    Plain,
    /// `[inputs, outputs]`; the buffer has `[outputs, inputs]` (GPT-2).
    Transposed,
    /// Less 1 (the scales of Gemma's norms).
    LessOne,
}

impl Form {
    /// Turns the values of a checkpoint into those of the buffer. `shape` is the checkpoint's.
    pub fn read(self, values: &mut [f32], shape: &[usize]) {
        match self {
            Form::Plain => {}
            Form::Transposed => transpose(values, shape[0]),
            Form::LessOne => values.iter_mut().for_each(|value| *value += 1.0),
        }
    }

    /// The values of the buffer as a checkpoint has them, of a tensor that it has in `shape`.
    pub fn stored<'a>(self, values: &'a [f32], shape: &[usize]) -> Cow<'a, [f32]> {
        let mut own = match self {
            Form::Plain => return Cow::Borrowed(values),
            Form::Transposed | Form::LessOne => values.to_vec(),
        };
        match self {
            Form::Transposed => transpose(&mut own, shape[1]),
            _ => own.iter_mut().for_each(|value| *value -= 1.0),
        }
        Cow::Owned(own)
    }
}

/// `[rows, columns]` → `[columns, rows]`.
fn transpose(values: &mut [f32], rows: usize) {
    let columns = values.len() / rows.max(1);
    let from = values.to_vec();
    for (column, row) in values.chunks_exact_mut(rows.max(1)).enumerate() {
        row.iter_mut().enumerate().for_each(|(i, value)| *value = from[i * columns + column]);
    }
}

/// What a tensor is to its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Part of what turns ids into the first states.
    #[default]
    Embedding,
    /// Part of layer `i`, from 0. A norm after all layers is part of the last one.
    Layer(usize),
    /// Between the last states and the output layer.
    Head,
    /// The output layer.
    Output,
}

/// One named tensor, without its values.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Name in the checkpoint.
    pub name: String,
    /// Dimensions in the checkpoint.
    pub shape: Vec<usize>,
    /// How the checkpoint stores its values.
    pub form: Form,
    /// What it is to its model.
    pub role: Role,
    /// Where its values lie; of a packed weight, a place behind any buffer.
    pub span: Span,
    /// How it starts without a checkpoint.
    pub initial: Initial,
    /// Whether weight decay applies: not to biases and norms.
    pub decay: bool,
    /// Whether a step may change it: never a packed one.
    pub trained: bool,
    /// Whether a step reaches only the rows that its tokens name: the table of words.
    pub sparse: bool,
}

impl ParameterSpec {
    /// Dimensions of its values in the buffer.
    pub fn buffer_shape(&self) -> Vec<usize> {
        match self.form {
            Form::Plain | Form::LessOne => self.shape.clone(),
            Form::Transposed => self.shape.iter().rev().copied().collect(),
        }
    }

    /// Where its values are kept.
    pub fn place(&self) -> Place {
        if self.span.start < PACKED { Place::Flat } else { Place::Packed }
    }
}

/// The tensors of a model: specs first, values once a checkpoint has been checked against them.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    specs: Vec<ParameterSpec>,
    len: usize,
    packed: usize,
    role: Role,
    /// The values of all specs but the packed ones, end to end; empty until allocated.
    pub values: Vec<f32>,
}

impl Parameters {
    /// Tensors that are declared from now on have this role.
    pub fn begin(&mut self, role: Role) {
        self.role = role;
    }

    /// Declares the next tensor. Weight decay applies to all but [`Initial::Zero`] and [`Initial::One`] ones.
    ///
    /// # Errors
    /// [`WeightError::TooLarge`] when the element count overflows.
    pub fn declare(&mut self, name: impl Into<String>, shape: &[usize], initial: Initial) -> Result<Span, WeightError> {
        self.declare_at(Place::Flat, name, shape, initial)
    }

    /// As [`Self::declare`], for a tensor that may be kept elsewhere.
    ///
    /// # Errors
    /// As [`Self::declare`].
    pub fn declare_at(
        &mut self,
        place: Place,
        name: impl Into<String>,
        shape: &[usize],
        initial: Initial,
    ) -> Result<Span, WeightError> {
        let name = name.into();
        let len = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let total = len.and_then(|len| self.count().checked_add(len)).filter(|total| *total < 1 << 40);
        let (Some(len), Some(_)) = (len, total) else {
            return Err(WeightError::TooLarge { name, shape: shape.to_vec() });
        };
        let (start, end) = match place {
            Place::Flat => (self.len, &mut self.len),
            Place::Packed => (PACKED + self.packed, &mut self.packed),
        };
        *end += len;
        let span = Span { start, len };
        let decay = matches!(initial, Initial::Normal(_) | Initial::Uniform(_));
        let (shape, role, trained) = (shape.to_vec(), self.role, place == Place::Flat);
        let form = Form::Plain;
        self.specs.push(ParameterSpec { name, shape, form, role, span, initial, decay, trained, sparse: false });
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

    /// Says how checkpoints store the tensor that was declared last.
    ///
    /// # Panics
    /// When none was declared.
    pub fn stored_as(&mut self, form: Form) {
        self.specs.last_mut().expect("one was just declared").form = form;
    }

    /// Takes tensors from training. Gradients and an optimizer that are made afterwards have no place for them.
    pub fn freeze(&mut self, is_frozen: impl Fn(&ParameterSpec) -> bool) {
        for spec in &mut self.specs {
            spec.trained &= !is_frozen(spec);
        }
    }

    /// Where the trained tensors lie in buffers of their own.
    pub fn trained(&self) -> Trained {
        Trained::of(&self.specs)
    }

    /// All tensors in declaration order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// Length of the flat buffer: the elements of all tensors but the packed ones.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of elements of all tensors, wherever they are kept.
    pub fn count(&self) -> usize {
        self.len + self.packed
    }

    /// True when nothing has a place in the flat buffer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Allocates the values of the flat buffer, all zero. Call once every shape is known to be right.
    pub fn allocate(&mut self) {
        self.values = kernels::memory::zeroed(self.len);
    }

    /// Allocates the values of what was declared since, all zero; those that are there stay.
    pub fn allocate_rest(&mut self) {
        self.values.resize(self.len, 0.0);
    }

    /// Fills one tensor as an untrained model has it. The values depend on `seed` and the name alone.
    pub fn initialise(&mut self, index: usize, seed: u64) {
        let spec = &self.specs[index];
        let values = &mut self.values[spec.span.range()];
        match spec.initial {
            Initial::Zero => values.fill(0.0),
            Initial::One => values.fill(1.0),
            Initial::Uniform(bound) => {
                let mut random = crate::random::Stream::named(seed, &spec.name);
                values.iter_mut().for_each(|v| *v = bound * (2.0 * random.uniform() - 1.0) as f32);
            }
            Initial::Normal(deviation) => {
                let mut random = crate::random::Stream::named(seed, &spec.name);
                values.iter_mut().for_each(|v| *v = deviation * random.normal() as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_undone_as_it_was_done() {
        let stored: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let cases = [
            (Form::Plain, stored.clone()),
            (Form::Transposed, vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
            (Form::LessOne, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ];
        for (form, expected) in cases {
            let mut values = stored.clone();
            form.read(&mut values, &[2, 3]);
            assert_eq!((&values, &*form.stored(&values, &[2, 3])), (&expected, stored.as_slice()), "{form:?}");
        }
    }

    /// What is kept packed takes nothing of the buffer, and whoever looks for it there is stopped.
    #[test]
    fn c2_a_packed_weight_has_no_place_in_the_buffer() {
        let mut parameters = Parameters::default();
        let mut declare = |place, name: &str| parameters.declare_at(place, name, &[3, 4], Initial::Zero).unwrap();
        let flat = declare(Place::Flat, "a");
        let packed = [declare(Place::Packed, "b"), declare(Place::Packed, "c")];
        let after = declare(Place::Flat, "d");
        assert_eq!((flat.range(), after.range()), (0..12, 12..24));
        assert_eq!(Span::join(&packed).len, 24, "packed neighbours join");
        assert_eq!((parameters.len(), parameters.count()), (24, 48));
        parameters.allocate();
        assert_eq!(parameters.values.len(), 24);
        assert!(packed.iter().all(|span| parameters.values.get(span.range()).is_none()));
    }
}
