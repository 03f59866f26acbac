//! Which language a text is in, without a model: sixteen languages, and `None` for all others.
//!
//! Scripts are told by their letters. Among the languages in Latin letters the crate `whichlang` chooses; it
//! knows no other answer than its own languages, so what it says (and what the script alone says of
//! Arabic, Cyrillic and Devanagari) is then held against the letters and the commonest words of the
//! language and of others that are like it. A text that does not look like the language found is in none.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use whichlang::Lang;

use super::language_words::PROFILES;

/// The codes (ISO 639-1) of the languages that [`identify`] can find.
pub const LANGUAGES: [&str; 16] =
    ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "sv", "tr", "vi", "zh"];

/// Of a text's letters, at most so many are foreign to its language: names and quotations have some.
const FOREIGN_MAX: f64 = 0.02;

/// A text of a few words may lack half a common word.
const COMMON_SPARE: f64 = 0.5;

/// A character that is a syllable or more stands for so many letters.
const EASTERN_WEIGHT: u64 = 3;

/// One kana in so many characters makes a text Japanese: Chinese has none.
const KANA_SHARE: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Latin,
    Cyrillic,
    Arabic,
    Devanagari,
    Han,
    Kana,
    Hangul,
    Other,
}

const SCRIPTS: usize = 8;

/// The blocks of Unicode that hold a script's letters.
fn script(letter: char) -> Script {
    match letter {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Script::Latin,
        '\u{400}'..='\u{52f}' => Script::Cyrillic,
        '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' => {
            Script::Arabic
        }
        '\u{900}'..='\u{97f}' => Script::Devanagari,
        '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3134f}' => Script::Han,
        '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9f}' => Script::Kana,
        '\u{1100}'..='\u{11ff}' | '\u{3131}'..='\u{318e}' | '\u{ac00}'..='\u{d7a3}' => Script::Hangul,
        _ => Script::Other,
    }
}

/// The small letters that every language of a script has; others must stand in a profile.
fn is_plain(script: Script, letter: char) -> bool {
    match script {
        Script::Latin => letter.is_ascii_lowercase(),
        Script::Cyrillic => matches!(letter, 'а'..='я'),
        Script::Arabic => matches!(letter, '\u{621}'..='\u{63a}' | '\u{641}'..='\u{652}' | '\u{670}'),
        Script::Devanagari | Script::Han | Script::Kana | Script::Hangul | Script::Other => true,
    }
}

/// The script that most of a text is in; `None` without letters.
fn main_script(text: &str) -> Option<Script> {
    let mut letters = [0_u64; SCRIPTS];
    for letter in text.chars().filter(|letter| letter.is_alphabetic()) {
        letters[script(letter) as usize] += 1;
    }
    let count = |script: Script| letters[script as usize];
    let (han, kana) = (count(Script::Han), count(Script::Kana));
    let eastern = if kana * KANA_SHARE > han { Script::Kana } else { Script::Han };
    let weights = [Script::Latin, Script::Cyrillic, Script::Arabic, Script::Devanagari, Script::Other]
        .map(|script| (script, count(script)))
        .into_iter()
        .chain([(Script::Hangul, EASTERN_WEIGHT * count(Script::Hangul))])
        .chain([(eastern, EASTERN_WEIGHT * (han + kana))]);
    let (script, weight) = weights.max_by_key(|(_, weight)| *weight)?;
    (weight > 0).then_some(script)
}

/// The code of a text's language, if it is one of [`LANGUAGES`] as far as can be told.
pub fn identify(text: &str) -> Option<&'static str> {
    let script = main_script(text)?;
    let text = if text.is_ascii() || unicode_normalization::is_nfc(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    };
    let code = match script {
        Script::Latin => in_latin_letters(&text),
        Script::Cyrillic => "ru",
        Script::Arabic => "ar",
        Script::Devanagari => "hi",
        Script::Han => return Some("zh"),
        Script::Kana => return Some("ja"),
        Script::Hangul => return Some("ko"),
        Script::Other => return None,
    };
    let profile = PROFILES.iter().position(|profile| profile.code == code)?;
    looks_like(&text, script, profile).then_some(code)
}

fn in_latin_letters(text: &str) -> &'static str {
    match whichlang::detect_language(text) {
        Lang::Deu => "de",
        Lang::Eng => "en",
        Lang::Fra => "fr",
        Lang::Ita => "it",
        Lang::Nld => "nl",
        Lang::Por => "pt",
        Lang::Spa => "es",
        Lang::Swe => "sv",
        Lang::Tur => "tr",
        Lang::Vie => "vi",
        // Not in these letters: no profile's common words will be found, and the text is in none.
        Lang::Ara => "ar",
        Lang::Cmn => "zh",
        Lang::Hin => "hi",
        Lang::Jpn => "ja",
        Lang::Kor => "ko",
        Lang::Rus => "ru",
    }
}

/// For each common word the profiles that have it, a bit each.
static COMMON: LazyLock<HashMap<&str, u128>> = LazyLock::new(|| {
    let mut common = HashMap::new();
    for (index, profile) in PROFILES.iter().enumerate() {
        for word in profile.words.split_whitespace() {
            *common.entry(word).or_default() |= 1_u128 << index;
        }
    }
    common
});

/// Whether a text has the letters and the common words of a profile, and no other has more of them.
fn looks_like(text: &str, script: Script, profile: usize) -> bool {
    let known = &PROFILES[profile];
    let mut common = [0_u64; PROFILES.len()];
    let (mut words, mut letters, mut foreign) = (0_u64, 0_u64, 0_u64);
    let mut small = String::new();
    for word in text.split(|c: char| !c.is_alphabetic() && !is_combining_mark(c)) {
        small.clear();
        small.extend(word.chars().flat_map(char::to_lowercase));
        let before = letters;
        for letter in small.chars().filter(|letter| self::script(*letter) == script) {
            letters += 1;
            foreign += u64::from(!is_plain(script, letter) && !known.letters.contains(letter));
        }
        words += u64::from(letters > before);
        let mut profiles = COMMON.get(small.as_str()).copied().unwrap_or_default();
        while profiles != 0 {
            common[profiles.trailing_zeros() as usize] += 1;
            profiles &= profiles - 1;
        }
    }
    let own = common[profile];
    foreign as f64 <= FOREIGN_MAX * letters as f64
        && own as f64 + COMMON_SPARE >= known.common_min * words as f64
        && common.iter().all(|other| *other <= own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(identify(text), expected, "{text}");
    }

    /// The first article of the Universal Declaration of Human Rights.
    #[test]
    fn sixteen_languages_are_told() {
        let all = [
            (
                "ar",
                "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا وعليهم أن يعامل بعضهم بعضًا بروح الإخاء.",
            ),
            (
                "de",
                "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
            ),
            (
                "en",
                "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.",
            ),
            (
                "es",
                "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
            ),
            (
                "fr",
                "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
            ),
            ("hi", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"),
            (
                "it",
                "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
            ),
            ("ja", "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"),
            ("ko", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
            (
                "nl",
                "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
            ),
            (
                "pt",
                "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de consciência, devem agir uns para com os outros em espírito de fraternidade.",
            ),
            (
                "ru",
                "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",
            ),
            (
                "sv",
                "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och samvete och bör handla gentemot varandra i en anda av broderskap.",
            ),
            (
                "tr",
                "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
            ),
            (
                "vi",
                "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu.",
            ),
            ("zh", "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"),
        ];
        for (code, text) in all {
            check(text, Some(code));
            check(&text.nfd().collect::<String>(), Some(code));
        }
        assert_eq!(all.map(|(code, _)| code), LANGUAGES);
        check("私は Rust と Python と TypeScript で書くのが好きです。", Some("ja"));
    }

    /// The same article.
    #[test]
    fn others_are_not_taken_for_them() {
        for text in [
            "Alle mennesker er født frie og lige i værdighed og rettigheder. De er udstyret med fornuft og samvittighed.",
            "Alle mennesker er født frie og med samme menneskeverd og menneskerettigheter. De er utstyrt med fornuft.",
            "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
            "Tots els éssers humans neixen lliures i iguals en dignitat i en drets. Són dotats de raó i de consciència.",
            "Tódolos seres humanos nacen libres e iguais en dignidade e dereitos e, dotados como están de razón e conciencia, díbense comportar fraternalmente uns cos outros.",
            "Toate ființele umane se nasc libere și egale în demnitate și în drepturi. Ele sunt înzestrate cu rațiune.",
            "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel és lelkiismerettel bírván.",
            "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
            "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama.",
            "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю.",
            "Всички хора се раждат свободни и равни по достойнство и права. Tе са надарени с разум и съвест.",
            "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند.",
            "सर्व मानवी व्यक्ति जन्मतःच स्वतंत्र आहेत व त्यांना समान प्रतिष्ठा व समान अधिकार आहेत.",
            "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
            "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_no_language_is_none() {
        for text in ["", "12 + 3 = 15", "\0\u{200f}", "fn main() { println!(x); }", "xq zzkv bnmw prtl"] {
            check(text, None);
        }
        check(&"buffalo ".repeat(100_000), None);
    }

    #[test]
    fn every_profile_has_a_bit_and_small_words() {
        assert!(PROFILES.len() <= u128::BITS as usize);
        for profile in &PROFILES {
            let words: Vec<&str> = profile.words.split_whitespace().collect();
            let sound = |word: &&&str| word.to_lowercase() != **word || !unicode_normalization::is_nfc(word);
            assert_eq!(words.iter().find(sound), None, "{}", profile.code);
            let mut once = words.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), words.len(), "{} has a word twice", profile.code);
        }
    }

    proptest! {
        #[test]
        fn any_text_has_one_answer(text in ".{0,200}") {
            prop_assert!(identify(&text).is_none_or(|code| LANGUAGES.contains(&code)));
        }
    }
}
