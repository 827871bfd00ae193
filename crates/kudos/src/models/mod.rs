//! Model families and the reward model.
