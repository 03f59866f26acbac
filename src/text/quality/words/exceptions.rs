//! Strings that are words as they stand, or split in places of their own: contractions, abbreviations,
//! times of day, emoticons. Never looks inside a longer string.
//!
//! The list is that of spaCy 3.8's English tokenizer, which datatrove counts words with; `scripts/parity.sh`
//! compares the two.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64;

/// Where the parts of an exception end, in bytes; the last is its length, and zeros follow.
pub(super) type Ends = [u8; 4];

/// What a key holds already mixed is not hashed again.
#[derive(Default)]
pub(in crate::text::quality) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// The longest exception, in bytes.
pub(super) const BYTES_MAX: usize = 40;

/// First parts of contractions, and the endings that follow them; a space parts an ending in two. Each base
/// also comes with a capital letter.
const CONTRACTIONS: [(&str, &str); 20] = [
    ("ai are dare has have is was were", "n't,nt"),
    ("c'm", "on"),
    ("ca did does do had may need ought sha wo", "n't,n't 've,nt,nt ve"),
    ("can", "not"),
    ("could might must should would", "'ve,ve,n't,n't 've,nt,nt ve"),
    ("gon", "na"),
    ("got", "ta"),
    ("let", "'s"),
    ("not", "'ve,ve"),
    (
        "he i it she that this there what when where why how these they those you we who",
        "'d,'d 've,d ve,'ll,'ll 've,ll ve",
    ),
    ("he i it that this there what when where why how these they those you we who", "d"),
    ("it that this there what when where why how these they those you who", "ll"),
    ("he it she that this there what when where why how who", "'s"),
    ("he she that this there what when where why how who", "s"),
    ("there what when where why how these they those you we who", "'re"),
    ("there what when where why how these they those you", "re"),
    ("i there what when where why how these they those you we who", "'ve,ve"),
    ("i", "'m,'m a,m,m a"),
    ("how", "'d 'y"),
    ("y'", "all"),
];

/// What stays one word though it holds marks that are words elsewhere. `'` also comes as `’`.
const WHOLE: &str = r#"' '' 'Cause 'Cos 'Coz 'Cuz 'S 'bout 'cause 'cos 'coz 'cuz 'd 'em 'll 'nuff 're 's ‘S ‘s —
    <space> C++ \") \n \t and/or w/o ma'am Ma'am o'clock O'clock
    doin' Doin' goin' Goin' havin' Havin' lovin' Lovin' nothin' Nothin' nuthin' Nuthin' ol' Ol' somethin' Somethin'
    a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü. a.m. p.m.
    Adm. Ak. Ala. Apr. Ariz. Ark. Aug. Bros. Calif. Co. Colo. Conn. Corp. D.C. Dec. Del. Dr. E.G. E.g. Feb. Fla. Ga.
    Gen. Gov. I.E. I.e. Ia. Id. Ill. Inc. Ind. Jan. Jr. Jul. Jun. Kan. Kans. Ky. La. Ltd. Mar. Mass. Md. Messrs.
    Mich. Minn. Miss. Mo. Mont. Mr. Mrs. Ms. Mt. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore.
    Pa. Ph.D. Prof. Rep. Rev. S.C. Sen. Sep. Sept. St. Tenn. Va. Wash. Wis. co. e.g. i.e. v.s. vs.
    (*_*) (-8 (-: (-; (-_-) (._.) (: (; (= (>_<) (^_^) (o: (¬_¬) (ಠ_ಠ) (╯°□°）╯︵┻━┻ )-: ): -_- -__- ._. 0.0 0.o 0_0
    0_o 8) 8-) 8-D 8D :'( :') :'-( :'-) :( :(( :((( :() :) :)) :))) :* :-( :-(( :-((( :-) :-)) :-))) :-* :-/ :-0 :-3
    :-> :-D :-O :-P :-X :-] :-o :-p :-x :-| :-} :/ :0 :1 :3 :> :D :O :P :X :] :o :o) :p :x :| :} ;) ;-) ;-D ;D ;_;
    <.< </3 <3 <33 <333 =( =) =/ =3 =D =[ =] =| >.< >.> >:( >:o ><(((*> @_@ O.O O.o O_O O_o V.V V_V XD XDD [-: [:
    [= ]= ^_^ ^__^ ^___^ o.0 o.O o.o o_0 o_O o_o v.v v_v xD xDD ¯\(ツ)/¯ ಠ_ಠ ಠ︵ಠ"#;

pub(super) struct Exceptions {
    ends: HashMap<u64, Ends, BuildHasherDefault<Mixed>>,
    /// A bit for the [`slot`] of every exception.
    slots: [u64; 64],
}

/// A number below 4,096 that a string need not share with an exception.
fn slot(text: &[u8]) -> usize {
    let at = |index: usize| usize::from(text.get(index).copied().unwrap_or(0));
    let last = usize::from(text.last().copied().unwrap_or(0));
    (at(0) ^ at(1).wrapping_mul(7) ^ last.wrapping_mul(61) ^ text.len().wrapping_mul(509)) & 4095
}

impl Exceptions {
    pub(super) fn get() -> &'static Exceptions {
        static ALL: LazyLock<Exceptions> = LazyLock::new(Exceptions::new);
        &ALL
    }

    #[inline]
    pub(super) fn find(&self, text: &str) -> Option<Ends> {
        let bytes = text.as_bytes();
        let slot = slot(bytes);
        if self.slots[slot / 64] >> (slot % 64) & 1 == 0 || bytes.len() > BYTES_MAX {
            return None;
        }
        self.ends.get(&xxh3_64(bytes)).copied()
    }

    fn new() -> Exceptions {
        let mut all = Exceptions { ends: HashMap::default(), slots: [0; 64] };
        for whole in WHOLE.split_whitespace() {
            all.add(&[whole]);
        }
        for hour in 1..=12 {
            for half in ["a.m.", "am", "p.m.", "pm"] {
                all.add(&[&hour.to_string(), half]);
            }
        }
        for degree in ["c", "f", "k", "C", "F", "K"] {
            all.add(&["°", degree, "."]);
        }
        all.add(&["y", "all"]);
        for (bases, endings) in CONTRACTIONS {
            for base in bases.split(' ') {
                let mut capital = base.to_owned();
                if let Some(first) = capital.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                for ending in endings.split(',') {
                    all.add_contraction(base, ending);
                    if base != "y'" {
                        all.add_contraction(&capital, ending);
                    }
                }
            }
        }
        all
    }

    fn add_contraction(&mut self, base: &str, ending: &str) {
        // These are words of their own more often than contractions.
        let whole = format!("{base}{}", ending.replace(' ', "")).to_lowercase();
        if ["ill", "its", "hell", "shell", "shed", "were", "well", "whore"].contains(&whole.as_str()) {
            return;
        }
        let parts: Vec<&str> = [base].into_iter().chain(ending.split(' ')).collect();
        self.add(&parts);
    }

    fn add(&mut self, parts: &[&str]) {
        self.put(parts);
        if parts.iter().any(|part| part.contains('\'')) {
            let curly: Vec<String> = parts.iter().map(|part| part.replace('\'', "’")).collect();
            self.put(&curly.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    fn put(&mut self, parts: &[&str]) {
        let whole = parts.concat();
        let slot = slot(whole.as_bytes());
        self.slots[slot / 64] |= 1 << (slot % 64);
        let mut ends = Ends::default();
        let mut end = 0;
        for (place, part) in ends.iter_mut().zip(parts) {
            end += part.len();
            *place = end as u8;
        }
        self.ends.insert(xxh3_64(whole.as_bytes()), ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[&str]>) {
        let found = Exceptions::get().find(text).map(|ends| {
            let mut start = 0;
            let parts = ends.into_iter().take_while(|end| *end > 0).map(|end| {
                let part = &text[start..usize::from(end)];
                start = usize::from(end);
                part
            });
            parts.collect::<Vec<_>>()
        });
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn contractions_split_and_abbreviations_do_not() {
        check("don't", Some(&["do", "n't"]));
        check("Wouldn’t’ve", Some(&["Would", "n’t", "’ve"]));
        check("cannot", Some(&["can", "not"]));
        check("Mr.", Some(&["Mr."]));
        check("11p.m.", Some(&["11", "p.m."]));
        check("its", None);
        check("word", None);
        check("", None);
    }

    #[test]
    fn no_exception_is_longer_than_it_may_be() {
        assert!(WHOLE.split_whitespace().all(|whole| whole.len() <= BYTES_MAX));
    }
}
