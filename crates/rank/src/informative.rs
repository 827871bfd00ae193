//! x
use crate::{ItemId, Store, StoreError, TaskId};

/// x
pub struct Head;

impl Head {
    /// x
    pub fn value(&self, _item: ItemId) -> Option<f64> {
        None
    }
}

impl Store {
    pub(crate) fn learn(&self, _item: ItemId, _task: TaskId) -> Result<(), StoreError> {
        Ok(())
    }
}
