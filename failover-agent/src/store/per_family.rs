//! How a value for each family is written to a file: as an array, IPv4's first.

use failover_policy::PerFamily;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) fn serialize<T, S>(values: &PerFamily<T>, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Serialize,
    S: Serializer,
{
    [&values.v4, &values.v6].serialize(serializer)
}

pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<PerFamily<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    <[T; 2]>::deserialize(deserializer).map(PerFamily::from)
}
