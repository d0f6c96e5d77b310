//! `haechi doctor`, `haechi bind`, `haechi unbind`: commands about the host, which need no node.

use std::path::Path;

use serde::Serialize;

use super::files;
use super::output::{self, Failure};
use super::{BindArgs, DoctorArgs};
use crate::config;
use crate::control::NodeError;
use crate::control::bind::{Bus, Linux};
use crate::control::doctor::{self, Report, Verdict};

/// What `doctor` says in JSON.
#[derive(Serialize)]
struct DoctorReport<'r> {
    /// No finding is `fail`.
    ok: bool,
    /// The configuration that it was asked about; `null`: none.
    file: Option<String>,
    #[serde(flatten)]
    report: &'r Report,
}

const ROOT: &str = "/";

pub(super) fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let config = match &args.config {
        None => None,
        Some(file) => {
            let checked = config::check(file);
            if checked.config.is_none() {
                return Err(files::refused_file(file, &checked, args.output.json));
            }
            checked.config
        }
    };
    let report = doctor::examine(Path::new(ROOT), config.as_ref());
    let ok = report.verdict() < Verdict::Fail;
    if args.output.json {
        output::print_json(&DoctorReport {
            ok,
            file: args.config.as_ref().map(|file| file.display().to_string()),
            report: &report,
        })?;
    } else {
        output::print(&report.text())?;
    }
    if ok { Ok(()) } else { Err(Failure::Printed) }
}

pub(super) fn bind(args: &BindArgs) -> Result<(), Failure> {
    change(args, |bus, say| bus.bind(&args.devices, say))
}

pub(super) fn unbind(args: &BindArgs) -> Result<(), Failure> {
    change(args, |bus, say| bus.unbind(&args.devices, say))
}

fn change(
    args: &BindArgs,
    act: impl Fn(&Bus<'_>, &mut dyn FnMut(String)) -> Result<(), NodeError>,
) -> Result<(), Failure> {
    let bus = Bus::new(Path::new(ROOT), &Linux, args.force);
    // What was done is said as it is done: whatever becomes of the next device.
    let mut printed = Ok(());
    let done = act(&bus, &mut |line| {
        let result = output::print(&format!("{line}\n"));
        if printed.is_ok() {
            printed = result;
        }
    });
    done?;
    printed
}
