//! The columns of a table whose rows were all seen before one is written: tables that are written in parts need the same
//! columns in each of them.
//!
//! A column has the narrowest type that holds its values. Where no type does (numbers here, lists there), it holds JSON text,
//! and [`Schema::restore`] gives the values back.

use super::integer;
use super::table::{CellType, present};
use arrow_array::{ArrayRef, LargeStringArray, RecordBatch};
use arrow_schema::{ArrowError, Schema as ArrowSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Columns in the order in which rows have shown them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(Vec<Column>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: CellType,
    /// A row has it as null, so that null is a value of it. Otherwise null stands where a row does not have the column.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    null: bool,
    /// It holds JSON text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    json: bool,
}

impl Schema {
    /// Takes in the columns of a row.
    pub fn meet(&mut self, row: &Map<String, Value>) {
        row.iter().for_each(|(name, value)| self.admit(name, value));
    }

    /// Takes in a column by one of its values.
    pub fn admit(&mut self, name: &str, value: &Value) {
        let at = self.0.iter().position(|column| column.name == name).unwrap_or_else(|| {
            self.0.push(Column { name: name.to_owned(), kind: CellType::Null, null: false, json: false });
            self.0.len() - 1
        });
        self.0[at].admit(value);
    }

    /// Settles what is still open, once all rows have been met: a column without a value holds text.
    pub fn settle(&mut self) {
        for column in &mut self.0 {
            match std::mem::replace(&mut column.kind, CellType::Text).settle() {
                Ok(kind) if !column.json => column.kind = kind,
                Ok(_) => {}
                Err(_) => column.json = true,
            }
        }
    }

    /// The names of all columns.
    pub fn names(&self) -> HashSet<String> {
        self.0.iter().map(|column| column.name.clone()).collect()
    }

    /// The same without a column.
    pub fn without(&self, name: &str) -> Schema {
        Schema(self.0.iter().filter(|column| column.name != name).cloned().collect())
    }

    /// The columns without their types, as a file has them.
    pub(super) fn titles(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|column| column.name.as_str())
    }

    /// The types of columns that hold their own values.
    pub(super) fn types(&self) -> impl Iterator<Item = (&str, &CellType)> {
        self.0.iter().filter(|column| !column.json).map(|column| (column.name.as_str(), &column.kind))
    }

    /// A settled schema in Arrow's terms.
    pub(super) fn arrow(&self) -> Arc<ArrowSchema> {
        Arc::new(ArrowSchema::new(self.0.iter().map(|column| column.kind.field(&column.name)).collect::<Vec<_>>()))
    }

    /// Rows as columns.
    pub(super) fn batch(&self, rows: &[Map<String, Value>]) -> Result<RecordBatch, ArrowError> {
        let columns = self.0.iter().map(|column| column.array(rows)).collect::<Result<_, _>>()?;
        RecordBatch::try_new(self.arrow(), columns)
    }

    /// A row as it was, of one that was read back from such columns.
    pub(super) fn restore(&self, row: Map<String, Value>) -> Map<String, Value> {
        let restored = row.into_iter().filter_map(|(name, value)| {
            let column = self.0.iter().find(|column| column.name == name)?;
            match value {
                Value::Null => column.null.then_some((name, Value::Null)),
                Value::String(text) if column.json => {
                    let value = integer::parse(&text).unwrap_or(Value::String(text));
                    Some((name, value))
                }
                value => Some((name, value)),
            }
        });
        restored.collect()
    }
}

impl Column {
    fn admit(&mut self, value: &Value) {
        self.null |= value.is_null();
        if self.json {
            return;
        }
        let kind = std::mem::replace(&mut self.kind, CellType::Text);
        match CellType::of(value).and_then(|found| kind.union(found)) {
            Ok(kind) => self.kind = kind,
            Err(_) => self.json = true,
        }
    }

    fn array(&self, rows: &[Map<String, Value>]) -> Result<ArrayRef, ArrowError> {
        let values: Vec<_> = rows.iter().map(|row| row.get(&self.name).and_then(present)).collect();
        if self.json {
            let texts = values.into_iter().map(|value| value.map(integer::to_json));
            return Ok(Arc::new(texts.collect::<LargeStringArray>()));
        }
        self.kind.column(&values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(value: Value) -> Vec<Map<String, Value>> {
        value.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    #[test]
    fn types_hold_all_rows() {
        let rows = rows(json!([
            {"a": 1, "b": "x", "c": 1, "d": null, "e": {}},
            {"a": 0.5, "c": [1], "late": true, "f": u64::MAX},
        ]));
        let mut schema = Schema::default();
        rows.iter().for_each(|row| schema.meet(row));
        schema.settle();
        let fields: Vec<String> =
            schema.arrow().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        let expected =
            ["a Float64", "b LargeUtf8", "c LargeUtf8", "d LargeUtf8", "e LargeUtf8", "late Boolean", "f LargeUtf8"];
        assert_eq!(fields, expected);
        let again: Schema = serde_json::from_str(&serde_json::to_string(&schema).unwrap()).unwrap();
        assert_eq!(again, schema);
    }
}
