//! The report of a program that the kernel refuses to load, in one line.

use anyhow::Error;
use aya::programs::ProgramError;

use super::{Direction, requirements};
use crate::failure::Failure;

/// How many lines of the verifier's log give the reason. The last names the rule, the one before it the access.
const WORDS: usize = 2;

/// The error for a program that could not be loaded.
pub(super) fn failure(direction: Direction, error: ProgramError) -> Error {
    let program = direction.program();
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return Error::new(error).context(format!("loading {program}"));
    };
    let words = last_words(&verifier_log.to_string());
    Failure::ProgramRefused {
        release: requirements::kernel_release().unwrap_or_else(|_| "of unknown release".into()),
        program,
        words: if words.is_empty() {
            io_error.to_string()
        } else {
            format!("{io_error}: {words}")
        },
    }
    .into()
}

/// The end of the verifier's log, without the thousands of lines that trace its steps and without its statistics.
fn last_words(log: &str) -> String {
    let mut words: Vec<&str> = log
        .lines()
        .rev()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !is_statistics(line))
        .take_while(|line| !is_trace(line))
        .take(WORDS)
        .collect();
    words.reverse();
    words.join("; ")
}

/// print_verification_stats() and print_verifier_state() of kernel/bpf/verifier.c.
fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "]
        .iter()
        .any(|start| line.starts_with(start))
}

/// An instruction, `3685: (85) call bpf_skb_load_bytes#26`, a state, `3684: R3_w=...`, or a jump, `from 12 to 19: R0=...`.
fn is_trace(line: &str) -> bool {
    let numbered = line
        .split_once(':')
        .is_some_and(|(number, _)| number.chars().all(|digit| digit.is_ascii_digit()));
    numbered || line.starts_with("from ") || line.starts_with("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_those_after_the_last_instruction() {
        // Of Linux 6.1.
        let log = "0: R1=ctx(off=0,imm=0) R10=fp0
; let length = core::hint::black_box(length) & LENGTH_MASK;
3684: (bf) r4 = r8                    ; R4_w=scalar(id=90,umax=548,var_off=(0x0; 0x3ff))
3685: (85) call bpf_skb_load_bytes#26
invalid access to map value, value_size=2048 off=0 size=0
R3 min value is outside of the allowed memory range
processed 2336 insns (limit 1000000) max_states_per_insn 4 total_states 154 peak_states 154 mark_read 41
";
        assert_eq!(
            last_words(log),
            "invalid access to map value, value_size=2048 off=0 size=0; R3 min value is outside of the allowed memory range"
        );
    }

    #[test]
    fn without_words_there_are_none() {
        assert_eq!(last_words(""), "");
        assert_eq!(
            last_words("from 4 to 9: R0=0\nprocessed 9 insns (limit 1000000)\n"),
            ""
        );
        assert_eq!(
            last_words("The sequence of 8193 jumps is too complex.\n"),
            "The sequence of 8193 jumps is too complex."
        );
        assert_eq!(last_words("a\nb\nc\n"), "b; c");
    }
}
