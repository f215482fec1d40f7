//! What is done to a journal, as a text: a line is a letter and numbers. The journal opens when something is to be written
//! and dies when something is damaged. Files count from the oldest on; a number that is too large begins again at 0.
//!
//! | line | |
//! |---|---|
//! | `i KIND SIZE` | an input is appended |
//! | `d SIZE` | the next input is decided |
//! | `m SIZE` | a mark of the last decision |
//! | `n NAME` | the router gets the name `fsNAME` |
//! | `w` | what was appended is written |
//! | `c` | the journal is closed |
//! | `k` | its process dies |
//! | `t PLACE` | Redis has everything up to that input, and the time of retention passes |
//! | `F FILE BIT` | a bit turns |
//! | `O FILE AT LENGTH BYTE` | bytes become others |
//! | `X FILE AT LENGTH` | bytes vanish, and what follows them moves |
//! | `T FILE LENGTH` | a file is cut |
//! | `R FILE` | a file goes |
//! | `S FILE FILE` | two files change places |
//! | `C FILE AT LENGTH FILE AT` | bytes are copied |
//! | `B FILE SECTOR` | a sector cannot be read any more |
//! | `N NUMBER` | an empty file appears |
//! | `V FILE AT KIND NUMBER SIZE` | a valid record appears |
//! | `H FILE VERSION FIRST DECIDED NAME` | a valid header appears, with a router's name of so many bytes |

/// The letters of the table.
const LETTERS: &str = "idmnwcktFOXTRSCBNVH";

/// One line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) letter: char,
    numbers: [u64; 5],
}

/// The steps of a text; what is no step is passed over.
pub(super) fn steps(text: &[u8]) -> Vec<Step> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter_map(step)
        .collect()
}

fn step(line: &str) -> Option<Step> {
    let mut words = line.split(' ');
    let mut letters = words.next()?.chars();
    let letter = letters.next().filter(|letter| LETTERS.contains(*letter))?;
    if letters.next().is_some() {
        return None;
    }
    let mut numbers = [0; 5];
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = word.parse().unwrap_or(0);
    }
    Some(Step { letter, numbers })
}

impl Step {
    pub(super) fn number(&self, place: usize) -> u64 {
        self.numbers[place]
    }

    /// A number below `limit`, or 0.
    pub(super) fn below(&self, place: usize, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from(self.numbers[place] % limit).expect("below a usize")
    }
}
