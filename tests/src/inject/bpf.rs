//! bpf(2): its command, and the map that it is about.

use std::{fs, os::unix::fs::FileExt as _};

use aya::maps::MapInfo;

use super::{
    calls::Context,
    kind::{Class, Kind},
};

/// `enum bpf_cmd` (linux/bpf.h) from 0 on.
const COMMANDS: [&str; 36] = [
    "MAP_CREATE",
    "MAP_LOOKUP_ELEM",
    "MAP_UPDATE_ELEM",
    "MAP_DELETE_ELEM",
    "MAP_GET_NEXT_KEY",
    "PROG_LOAD",
    "OBJ_PIN",
    "OBJ_GET",
    "PROG_ATTACH",
    "PROG_DETACH",
    "PROG_TEST_RUN",
    "PROG_GET_NEXT_ID",
    "MAP_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID",
    "MAP_GET_FD_BY_ID",
    "OBJ_GET_INFO_BY_FD",
    "PROG_QUERY",
    "RAW_TRACEPOINT_OPEN",
    "BTF_LOAD",
    "BTF_GET_FD_BY_ID",
    "TASK_FD_QUERY",
    "MAP_LOOKUP_AND_DELETE_ELEM",
    "MAP_FREEZE",
    "BTF_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH",
    "MAP_LOOKUP_AND_DELETE_BATCH",
    "MAP_UPDATE_BATCH",
    "MAP_DELETE_BATCH",
    "LINK_CREATE",
    "LINK_UPDATE",
    "LINK_GET_FD_BY_ID",
    "LINK_GET_NEXT_ID",
    "ENABLE_STATS",
    "ITER_CREATE",
    "LINK_DETACH",
    "PROG_BIND_MAP",
];

pub(super) fn kind(context: &Context, command: i32, attributes: u64) -> Option<Kind> {
    let command = COMMANDS.get(usize::try_from(command).ok()?)?;
    let mut name = format!("bpf {command}");
    if command.ends_with("_ELEM")
        && let Some(map) = map(context, attributes)
    {
        name = format!("{name} {map}");
    }
    Some(Kind::new(Class::Bpf, name))
}

/// The name of the map whose descriptor is the first of the attributes.
fn map(context: &Context, attributes: u64) -> Option<String> {
    let mut descriptor = [0; 4];
    context
        .memory
        .read_exact_at(&mut descriptor, attributes)
        .ok()?;
    let descriptor = u32::from_ne_bytes(descriptor);
    let path = format!("/proc/{}/fdinfo/{descriptor}", context.pid);
    let info = fs::read_to_string(path).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("map_id:"))?;
    let map = MapInfo::from_id(id.trim().parse().ok()?).ok()?;
    Some(map.name_as_str()?.to_owned())
}
