//! A TOML file becomes a [`Draft`]: each key where it belongs, each value of its type and in its range.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    draft::{Draft, ProbeDraft, UplinkDraft},
    key::{Key, Section},
    kind::Kind,
    nearest, probe_keys,
    raw::{Placed, Raw, Source, invalid},
    schema::{self, SECTIONS},
    uplink_keys,
};
use crate::failure::Failure;

/// Longest file in bytes: a longer file is no configuration, and a device would have no end.
const MAX_LENGTH: u64 = 1 << 20;

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<Draft, Failure> {
    let text = read_text(path).map_err(|source| Failure::ConfigUnreadable {
        path: path.to_owned(),
        source,
    })?;
    let source = Source {
        name: path.display().to_string(),
        text: &text,
    };
    let document = DeTable::parse(&text).map_err(|error| {
        invalid(
            source.place(&error.span().unwrap_or(0..0)),
            error.message().replace('\n', ", "),
            "correct the TOML syntax here",
        )
    })?;
    document_draft(&source, document.get_ref())
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?
        .take(MAX_LENGTH + 1)
        .read_to_string(&mut text)?;
    if length as u64 > MAX_LENGTH {
        return Err(io::Error::other(format!("more than {MAX_LENGTH} bytes")));
    }
    Ok(text)
}

fn document_draft(source: &Source<'_>, document: &DeTable<'_>) -> Result<Draft, Failure> {
    let names = SECTIONS.map(|section| section.name);
    refuse_unknown(source, document, "the file", &names)?;
    let table = |section: &'static Section| Table::find(source, document, section);
    let mut draft = Draft::new(source.place(&(0..0)));

    read_probe(&table(&probe_keys::PROBE)?, &mut draft.probe)?;

    let route = table(&schema::ROUTE)?;
    route.read(&schema::ACTIVE_METRIC, &mut draft.active_metric)?;
    route.read(&schema::STANDBY_METRIC, &mut draft.standby_metric)?;
    route.read(&schema::PROTOCOL, &mut draft.protocol)?;
    route.read(&schema::TABLE, &mut draft.table)?;
    route.read(&schema::RULE_PRIORITY, &mut draft.rule_priority)?;
    route.read(&schema::MARK, &mut draft.mark)?;
    route.read(&schema::ON_DOWN, &mut draft.on_down)?;

    let cutoff = table(&schema::CUTOFF)?;
    cutoff.read(&schema::MODE, &mut draft.mode)?;
    cutoff.read(&schema::FAILOVER, &mut draft.failover)?;
    cutoff.read(&schema::FAILBACK, &mut draft.failback)?;
    cutoff.read(&schema::DRAIN, &mut draft.drain)?;
    cutoff.read(&schema::LEASE, &mut draft.lease)?;
    cutoff.read(&schema::ALLOW, &mut draft.allow)?;
    cutoff.read(&schema::ALLOW_MARKS, &mut draft.allow_marks)?;

    table(&schema::DATAPATH)?.read(&schema::ATTACH, &mut draft.attach)?;

    let hooks = table(&schema::HOOKS)?;
    hooks.read(&schema::ON_SWITCH, &mut draft.on_switch)?;
    hooks.read(&schema::HOOK_TIMEOUT, &mut draft.hook_timeout)?;

    let dirs = table(&schema::DIRS)?;
    dirs.read(&schema::RUN_DIR, &mut draft.run_dir)?;
    dirs.read(&schema::BPF_DIR, &mut draft.bpf_dir)?;
    dirs.read(&schema::STATE_DIR, &mut draft.state_dir)?;

    for table in Table::find_all(source, document, &uplink_keys::UPLINK)? {
        let uplink = uplink_draft(&table, &draft)?;
        draft.uplinks.push(uplink);
    }
    Ok(draft)
}

fn uplink_draft(table: &Table<'_>, defaults: &Draft) -> Result<UplinkDraft, Failure> {
    let mut interface = Placed::default_value(String::new());
    table.read(&uplink_keys::INTERFACE, &mut interface)?;
    let Some(place) = interface.place else {
        return Err(invalid(
            table.place.clone(),
            "this [[uplink]] has no interface",
            "add for example interface = \"eth0\"",
        ));
    };
    let mut uplink = UplinkDraft::new(interface.value, place, defaults);
    table.read(&uplink_keys::NAME, &mut uplink.name)?;
    table.read(&uplink_keys::GATEWAY, &mut uplink.gateway)?;
    table.read(&uplink_keys::GATEWAY6, &mut uplink.gateway6)?;
    table.read(&uplink_keys::SOURCE, &mut uplink.source)?;
    table.read(&uplink_keys::SOURCE6, &mut uplink.source6)?;
    table.read(&uplink_keys::METERED, &mut uplink.metered)?;
    table.read(&uplink_keys::UPLINK_DRAIN, &mut uplink.drain)?;
    table.read(&uplink_keys::INBOUND, &mut uplink.inbound)?;
    table.read(&uplink_keys::RANK, &mut uplink.rank)?;
    table.read(&uplink_keys::WEIGHT, &mut uplink.weight)?;
    table.read(&uplink_keys::METRIC_OF, &mut uplink.metric)?;
    table.read(&uplink_keys::RECOVER, &mut uplink.recover)?;
    table.read(&uplink_keys::RECOVER_INTERVAL, &mut uplink.recover_interval)?;
    read_probe(table, &mut uplink.probe)?;
    Ok(uplink)
}

fn read_probe(table: &Table<'_>, probe: &mut ProbeDraft) -> Result<(), Failure> {
    table.read(&probe_keys::TARGETS, &mut probe.targets)?;
    table.read(&probe_keys::INTERVAL, &mut probe.interval)?;
    table.read(&probe_keys::TIMEOUT, &mut probe.timeout)?;
    table.read(&probe_keys::FALL, &mut probe.fall)?;
    table.read(&probe_keys::RISE, &mut probe.rise)?;
    table.read(&probe_keys::QUORUM, &mut probe.quorum)?;
    table.read(&probe_keys::HOLD, &mut probe.hold)
}

/// One table of the file, its keys checked; without entries where the file has none.
struct Table<'a> {
    source: &'a Source<'a>,
    place: String,
    entries: Option<&'a DeTable<'a>>,
}

impl<'a> Table<'a> {
    fn find(
        source: &'a Source<'a>,
        document: &'a DeTable<'a>,
        section: &Section,
    ) -> Result<Self, Failure> {
        match document.get(section.name) {
            Some(value) => Self::new(source, value, section),
            None => Ok(Table {
                source,
                place: source.name.clone(),
                entries: None,
            }),
        }
    }

    fn find_all(
        source: &'a Source<'a>,
        document: &'a DeTable<'a>,
        section: &Section,
    ) -> Result<Vec<Self>, Failure> {
        let Some(value) = document.get(section.name) else {
            return Ok(Vec::new());
        };
        let Some(array) = value.get_ref().as_array() else {
            return Err(not_a_table(source, value, section));
        };
        array
            .iter()
            .map(|value| Self::new(source, value, section))
            .collect()
    }

    fn new(
        source: &'a Source<'a>,
        value: &'a Spanned<DeValue<'a>>,
        section: &Section,
    ) -> Result<Self, Failure> {
        let Some(entries) = value.get_ref().as_table() else {
            return Err(not_a_table(source, value, section));
        };
        let names: Vec<&str> = section.names().collect();
        refuse_unknown(source, entries, section.header, &names)?;
        Ok(Table {
            source,
            place: source.place(&value.span()),
            entries: Some(entries),
        })
    }

    fn read<K: Kind>(&self, key: &Key<K>, into: &mut Placed<K::Value>) -> Result<(), Failure> {
        if let Some(value) = self.entries.and_then(|entries| entries.get(key.name)) {
            let raw = Raw::Toml {
                source: self.source,
                value,
            };
            *into = Placed::at(raw.place(), key.kind.read(key.name, raw)?);
        }
        Ok(())
    }
}

fn not_a_table(source: &Source<'_>, value: &Spanned<DeValue<'_>>, section: &Section) -> Failure {
    let header = section.header;
    invalid(
        source.place(&value.span()),
        format!("`{}` must be a table {header}", section.name),
        format!("begin it with a line {header}"),
    )
}

/// Refuses the first key in the file that `table` does not know.
fn refuse_unknown(
    source: &Source<'_>,
    table: &DeTable<'_>,
    header: &str,
    known: &[&str],
) -> Result<(), Failure> {
    let unknown = table
        .keys()
        .filter(|key| !known.contains(&key.get_ref().as_ref()))
        .min_by_key(|key| key.span().start);
    let Some(key) = unknown else {
        return Ok(());
    };
    let name = key.get_ref().as_ref();
    let place = source.place(&key.span());
    let home = SECTIONS
        .iter()
        .find(|section| section.keys.iter().any(|key| key.name() == name));
    let cure = if let Some(near) = nearest(name, known.iter().copied()) {
        format!("did you mean `{near}`?")
    } else if let Some(section) = home {
        format!("it belongs in {}", section.header)
    } else {
        format!("valid keys are {}", known.join(", "))
    };
    Err(invalid(
        place,
        format!("unknown key `{name}` in {header}"),
        cure,
    ))
}
