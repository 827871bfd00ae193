//! JSON values → Arrow columns, for writing Parquet.
//!
//! A Parquet column has one type; JSON says its types row by row. The type of a column is the union of
//! what its first rows hold; a later value outside it is refused, never bent.

use super::integer;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, LargeStringArray, ListArray, NullArray, StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// The type of a column, as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CellType {
    /// Only nulls so far.
    Null,
    Bool,
    Int,
    Float,
    /// `"NaN"`, `"Infinity"`, `"-Infinity"`: a float that JSON cannot write, or just that text.
    NonFinite,
    Text,
    List(Box<CellType>),
    Object(Vec<(String, CellType)>),
}

/// Two types that no one column can hold.
#[derive(Debug, PartialEq)]
pub(super) struct Conflict;

impl CellType {
    pub fn of(value: &Value) -> Result<CellType, Conflict> {
        Ok(match value {
            Value::Null => CellType::Null,
            Value::Bool(_) => CellType::Bool,
            Value::Number(number) if number.is_i64() => CellType::Int,
            Value::Number(number) if number.is_u64() => return Err(Conflict),
            Value::Number(_) => CellType::Float,
            Value::String(text) if non_finite(text).is_some() => CellType::NonFinite,
            Value::String(_) => CellType::Text,
            Value::Array(list) => {
                let items = list.iter().map(CellType::of);
                CellType::List(Box::new(union_all(items)?))
            }
            Value::Object(_) if integer::digits(value).is_some() => return Err(Conflict),
            Value::Object(map) => {
                let member = |(key, value): (&String, &Value)| Ok((key.clone(), CellType::of(value)?));
                CellType::Object(map.iter().map(member).collect::<Result<_, Conflict>>()?)
            }
        })
    }

    /// The narrowest type that holds both.
    pub fn union(self, other: CellType) -> Result<CellType, Conflict> {
        use CellType::*;
        Ok(match (self, other) {
            (Null, known) | (known, Null) => known,
            (a, b) if a == b => a,
            (Int | Float | NonFinite, Float) | (Float, Int | NonFinite) => Float,
            (Int, NonFinite) | (NonFinite, Int) => Float,
            (Text, NonFinite) | (NonFinite, Text) => Text,
            (List(a), List(b)) => List(Box::new(a.union(*b)?)),
            (Object(mut members), Object(more)) => {
                for (key, kind) in more {
                    match members.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, known)) => *known = known.clone().union(kind)?,
                        None => members.push((key, kind)),
                    }
                }
                Object(members)
            }
            _ => return Err(Conflict),
        })
    }

    /// Settles what is still open, as text. An object without keys has no Parquet type.
    pub fn settle(self) -> Result<CellType, Conflict> {
        Ok(match self {
            CellType::Null | CellType::NonFinite => CellType::Text,
            CellType::List(item) => CellType::List(Box::new(item.settle()?)),
            CellType::Object(members) if members.is_empty() => return Err(Conflict),
            CellType::Object(members) => {
                let settle = |(key, kind): (String, CellType)| Ok((key, kind.settle()?));
                CellType::Object(members.into_iter().map(settle).collect::<Result<_, Conflict>>()?)
            }
            known => known,
        })
    }

    pub fn data_type(&self) -> DataType {
        match self {
            CellType::Null => DataType::Null,
            CellType::Bool => DataType::Boolean,
            CellType::Int => DataType::Int64,
            CellType::Float => DataType::Float64,
            CellType::NonFinite | CellType::Text => DataType::LargeUtf8,
            CellType::List(item) => DataType::List(Arc::new(item.field("item"))),
            CellType::Object(members) => DataType::Struct(fields(members)),
        }
    }

    pub fn field(&self, name: &str) -> Field {
        Field::new(name, self.data_type(), true)
    }

    /// A column of values that are all of this type; `None` is a missing value.
    pub fn column(&self, values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
        let each = values.iter().copied();
        Ok(match self {
            CellType::Null => Arc::new(NullArray::new(values.len())),
            CellType::Bool => Arc::new(each.map(|v| v?.as_bool()).collect::<BooleanArray>()),
            CellType::Int => Arc::new(each.map(|v| v?.as_i64()).collect::<Int64Array>()),
            CellType::Float => Arc::new(each.map(|v| float(v?)).collect::<Float64Array>()),
            CellType::NonFinite | CellType::Text => Arc::new(each.map(|v| v?.as_str()).collect::<LargeStringArray>()),
            CellType::List(item) => list_column(item, values)?,
            CellType::Object(members) => object_column(members, values)?,
        })
    }
}

fn union_all(mut kinds: impl Iterator<Item = Result<CellType, Conflict>>) -> Result<CellType, Conflict> {
    kinds.try_fold(CellType::Null, |all, kind| all.union(kind?))
}

fn fields(members: &[(String, CellType)]) -> Fields {
    members.iter().map(|(name, kind)| kind.field(name)).collect()
}

fn list_column(item: &CellType, values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    let lists: Vec<Option<&Vec<Value>>> = values.iter().map(|v| v.and_then(Value::as_array)).collect();
    let lengths = lists.iter().map(|list| list.map_or(0, Vec::len));
    let items: Vec<Option<&Value>> = lists.iter().copied().flatten().flatten().map(present).collect();
    let valid: NullBuffer = lists.iter().map(Option::is_some).collect();
    let field = Arc::new(item.field("item"));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(field, offsets, item.column(&items)?, Some(valid))?))
}

fn object_column(members: &[(String, CellType)], values: &[Option<&Value>]) -> Result<ArrayRef, ArrowError> {
    let member = |(name, kind): &(String, CellType)| {
        let values: Vec<_> = values.iter().map(|v| v.and_then(|v| v.get(name)).and_then(present)).collect();
        kind.column(&values)
    };
    let columns = members.iter().map(member).collect::<Result<_, _>>()?;
    let valid: NullBuffer = values.iter().map(Option::is_some).collect();
    Ok(Arc::new(StructArray::try_new(fields(members), columns, Some(valid))?))
}

/// A null is a missing value.
pub(super) fn present(value: &Value) -> Option<&Value> {
    Some(value).filter(|value| !value.is_null())
}

fn float(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| non_finite(value.as_str()?))
}

fn non_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unions() {
        let cases = [
            (json!(null), json!(1), Some("Int64")),
            (json!(1), json!(0.5), Some("Float64")),
            (json!(1), json!("NaN"), Some("Float64")),
            (json!("NaN"), json!("x"), Some("LargeUtf8")),
            (json!("NaN"), json!(null), Some("LargeUtf8")),
            (json!([]), json!([1]), Some("List(Int64)")),
            (json!({"a": 1}), json!({"b": null}), Some("Struct(\"a\": Int64, \"b\": LargeUtf8)")),
            (json!(1), json!("x"), None),
            (json!(true), json!(1), None),
            (json!([1]), json!(1), None),
            (json!({"a": 1}), json!({"a": "x"}), None),
            (json!({}), json!(null), None),
            (json!(u64::MAX), json!(null), None),
        ];
        for (first, second, expected) in cases {
            let union = CellType::of(&first).and_then(|kind| kind.union(CellType::of(&second)?));
            let settled = union.and_then(CellType::settle).map(|kind| kind.data_type().to_string());
            assert_eq!(settled.ok().as_deref(), expected, "{first} {second}");
        }
    }
}
