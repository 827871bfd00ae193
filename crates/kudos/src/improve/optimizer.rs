//! AdamW over the layers of a policy, one at a time.
//!
//! Gradients of a layer are used up as soon as they are there, so those of all layers share one place. That is why nothing
//! is clipped to a norm of all: a step of Adam has the same size whatever that of the gradient.

use crate::models::Decoder;
use crate::nn::{Gradients, ParameterSpec, Precision, Role, Trained};
use kernels::bf16::Bf16;
use kernels::memory::touched;
use kernels::optimizer::{AdamW, HalfTensor, Tensor, adamw, adamw_half};

/// The moments: with values that are learnt in bf16 they are kept so.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Moments {
    Full([Vec<f32>; 2]),
    Half([Vec<Bf16>; 2]),
}

/// The state of AdamW.
#[derive(Clone, Debug)]
pub struct PolicyOptimizer {
    pub(super) moments: Moments,
    /// Where a parameter's moments lie.
    pub(super) trained: Trained,
    /// Steps done.
    pub(super) step: u64,
}

impl PolicyOptimizer {
    /// Fresh state for a policy.
    pub fn new(policy: &Decoder, precision: Precision) -> Self {
        let trained = policy.parameters().trained();
        let len = trained.len();
        let moments = match precision {
            Precision::Bf16 => Moments::Half([touched(len), touched(len)]),
            _ => Moments::Full([touched(len), touched(len)]),
        };
        Self { moments, trained, step: 0 }
    }

    /// Begins a step.
    pub(super) fn begin(&mut self) {
        self.step += 1;
    }

    /// Moves the parameters of these roles by their gradients.
    pub(super) fn advance(
        &mut self,
        policy: &mut Decoder,
        gradients: &Gradients,
        rate: f32,
        moves: impl Fn(Role) -> bool,
    ) {
        let (parameters, _) = policy.trained_mut();
        let mut values = std::mem::take(&mut parameters.values);
        for (index, spec) in parameters.specs().iter().enumerate().filter(|(_, spec)| moves(spec.role)) {
            self.tensor(&mut values[spec.span.range()], gradients, spec, (index, rate));
        }
        parameters.values = values;
    }

    fn tensor(&mut self, values: &mut [f32], gradients: &Gradients, spec: &ParameterSpec, (index, rate): (usize, f32)) {
        let (Some(place), Some(gradient)) = (self.trained.place(spec.span), gradients.of(spec.span)) else { return };
        let adam = AdamW {
            learning_rate: rate,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            gradient_scale: 1.0,
            step: self.step,
        };
        match &mut self.moments {
            Moments::Full(moments) => {
                let [first, second] = moments.each_mut().map(|moment| &mut moment[place.range()]);
                adamw(Tensor { values, first, second, gradient }, adam);
            }
            Moments::Half(moments) => {
                let [first, second] = moments.each_mut().map(|moment| &mut moment[place.range()]);
                // Another stream for each tensor and step.
                let noise = (index as u32).wrapping_mul(0x85eb_ca77) ^ (self.step as u32).wrapping_mul(0xc2b2_ae3d);
                adamw_half(HalfTensor { values, first, second, gradient }, adam, noise);
            }
        }
    }

    /// Bytes of the moments.
    pub(super) fn bytes(&self) -> u64 {
        let each = match &self.moments {
            Moments::Full(_) => 8,
            Moments::Half(_) => 4,
        };
        each * self.trained.len() as u64
    }
}
