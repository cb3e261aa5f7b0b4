//! Laboratories side by side: first the clean runs, then the injections.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use failover_lab::lock;

use super::{
    Arguments,
    host::{Host, Performed},
    phase::{Phase, Setting},
    plan::{Filter, Injection, Recorded, is_long, plan, sample},
    report::{self, Report, Verdict},
};

/// Everything that the arguments ask for.
pub(super) fn run(program: &Path, arguments: &Arguments) -> Result<Report> {
    let begun = Instant::now();
    let recorded = record(program, arguments)?;
    if arguments.list {
        list(&recorded);
    }
    let filter = Filter {
        kind: arguments.kind.clone(),
        error: arguments.error.clone(),
        only: arguments.only.clone(),
    };
    let mut injections = plan(&recorded, &filter);
    let seed = arguments
        .sample
        .map(|_| arguments.seed.unwrap_or_else(|| fastrand::u64(..)));
    if let (Some(count), Some(seed)) = (arguments.sample, seed) {
        eprintln!(
            "a sample of {count} out of {}, --seed {seed}",
            injections.len()
        );
        injections = sample(injections, count, seed);
    }
    ensure!(!injections.is_empty(), "no call is like that");
    if arguments.list {
        injections
            .iter()
            .for_each(|injection| println!("{injection}"));
        injections.clear();
    }
    // Long ones first: they shall not be what is waited for at the end.
    injections.sort_by_key(|injection| (injection.setting, !is_long(injection)));
    Ok(Report {
        recorded,
        results: inject(program, arguments, injections),
        took: begun.elapsed(),
        seed,
    })
}

fn list(recorded: &[Recorded]) {
    for Recorded {
        setting,
        phase,
        calls,
    } in recorded
    {
        for seen in calls {
            println!("{setting} {phase}: {} × {}", seen.count, seen.kind.name);
        }
    }
}

/// Clean runs of each phase in each setting.
fn record(program: &Path, arguments: &Arguments) -> Result<Vec<Recorded>> {
    let wanted = |phase: &Phase| arguments.phase.is_empty() || arguments.phase.contains(phase);
    let phases: Vec<Phase> = Phase::ALL.into_iter().filter(wanted).collect();
    let wanted =
        |setting: &Setting| arguments.setting.is_empty() || arguments.setting.contains(setting);
    let settings: Vec<Setting> = Setting::ALL.into_iter().filter(wanted).collect();
    let runs = settings
        .iter()
        .flat_map(|setting| phases.iter().map(|phase| (*setting, *phase)));
    let queue = Mutex::new(runs.collect::<VecDeque<_>>());
    let recorded = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        let mut host: Option<(Setting, Host)> = None;
        loop {
            let Some((setting, phase)) = lock(&queue).pop_front() else {
                return Ok(());
            };
            let performed = on(&mut host, setting, program)?.perform(phase, None);
            let Performed { record, .. } =
                performed.with_context(|| format!("a clean run: {setting} {phase}"))?;
            eprintln!("{setting} {phase}: {} kinds of calls", record.calls.len());
            lock(&recorded).push(Recorded {
                setting,
                phase,
                calls: record.calls,
            });
        }
    };
    thread::scope(|scope| {
        let jobs: Vec<_> = (0..arguments.jobs.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        let joined = jobs.into_iter().map(|job| match job.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<()>>>()
    })?;
    let mut recorded = recorded.into_inner().unwrap_or_default();
    recorded.sort_by_key(|recorded| (recorded.setting, recorded.phase));
    Ok(recorded)
}

/// The host of a setting: the one that is there, or a new one.
fn on<'a>(
    host: &'a mut Option<(Setting, Host)>,
    setting: Setting,
    program: &Path,
) -> Result<&'a Host> {
    if host.as_ref().is_some_and(|(of, _)| *of != setting) {
        *host = None;
    }
    let (_, host) = match host.take() {
        Some(there) => host.insert(there),
        None => host.insert((setting, Host::build(setting, program)?)),
    };
    Ok(host)
}

fn inject(
    program: &Path,
    arguments: &Arguments,
    injections: Vec<Injection>,
) -> Vec<report::Result> {
    let total = injections.len();
    let done = AtomicUsize::new(0);
    let queue = Mutex::new(VecDeque::from(injections));
    let results = Mutex::new(Vec::new());
    let work = || {
        let mut host = None;
        loop {
            let Some(injection) = lock(&queue).pop_front() else {
                return;
            };
            let verdict = match judge(&mut host, program, &injection) {
                Verdict::Survived(Some(code)) if arguments.uninterrupted => {
                    Verdict::Failed(format!("ended with {code}"))
                }
                verdict => verdict,
            };
            let number = done.fetch_add(1, Ordering::Relaxed) + 1;
            let word = match &verdict {
                Verdict::Survived(None) => "survived".to_owned(),
                Verdict::Survived(Some(code)) => format!("survived, ended with {code}"),
                Verdict::Wavered(_) => "wavered".to_owned(),
                Verdict::Failed(_) => "FAILED".to_owned(),
                Verdict::NotReached => "not reached".to_owned(),
            };
            eprintln!("{number}/{total} {injection}: {word}");
            if let Verdict::Failed(why) | Verdict::Wavered(why) = &verdict {
                eprintln!("{why}");
            }
            lock(&results).push(report::Result { injection, verdict });
        }
    };
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|result| (result.injection.setting, result.injection.phase));
    results
}

/// What comes of one injection. What fails is tried once more: a busy machine is no defect.
fn judge(host: &mut Option<(Setting, Host)>, program: &Path, injection: &Injection) -> Verdict {
    let why = match attempt(host, program, injection) {
        Ok(verdict) => return verdict,
        Err(error) => format!("{error:#}"),
    };
    match attempt(host, program, injection) {
        Ok(_) => Verdict::Wavered(why),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    }
}

/// How often the last call is waited for: its number differs from run to run.
const TRIES: usize = 4;

fn attempt(
    host: &mut Option<(Setting, Host)>,
    program: &Path,
    injection: &Injection,
) -> Result<Verdict> {
    let Injection { setting, phase, .. } = *injection;
    let mut order = injection.order.clone();
    for _ in 0..TRIES {
        let performed = on(host, setting, program)?.perform(phase, Some(&order));
        let Performed { record, ended } = match performed {
            Ok(performed) => performed,
            Err(error) => {
                *host = None;
                return Err(error);
            }
        };
        if record.injected.is_some() {
            return Ok(Verdict::Survived(ended));
        }
        let mut calls = record.calls.iter();
        match calls.find(|seen| seen.kind.name == order.kind) {
            Some(seen) => order.occurrence = seen.count,
            None => return Ok(Verdict::NotReached),
        }
    }
    Ok(Verdict::NotReached)
}
