//! What languages look like: their letters and their commonest words. Data of `language.rs`.
//!
//! The languages that are found come first. The others are told from them: relatives, and languages
//! whose short words happen to be the same. Words are small, in NFC, and nearly all without a meaning of
//! their own, so that they do not hang on what a text is about.

/// A language that is found, or one that is told from it.
pub struct Profile {
    pub code: &'static str,
    /// Small letters beside the script's plain ones.
    pub letters: &'static str,
    /// Of the words of a text in the language, at least this share is in `words`: 40 % of the share in
    /// the Universal Declaration of Human Rights and in a desktop's help pages. 1 for what is not found.
    pub common_min: f64,
    /// Parted by white space.
    pub words: &'static str,
}

impl Profile {
    const fn found(
        code: &'static str,
        letters: &'static str,
        common_min: f64,
        words: &'static str,
    ) -> Profile {
        Profile { code, letters, common_min, words }
    }

    const fn other(code: &'static str, words: &'static str) -> Profile {
        Profile { code, letters: "", common_min: 1.0, words }
    }
}

/// All profiles; at most 128.
pub const PROFILES: [Profile; 66] = [
    Profile::found(
        "en",
        "éèêëïöüñçàâ",
        0.144,
        "the to a and in of is for on or if it that be are will this not have by with from as an may \
             which other at all these should any they has only each such its was were been but he she we \
             you his her their i can no when there who what more do does into than then them so about out \
             up one my our your how also would could had must whom every everyone person where under \
             between through after before while being most same select use used using see click new want \
             get",
    ),
    Profile::found(
        "de",
        "äöüßéà",
        0.152,
        "sie die der und auf in zu den das oder ein eine ist mit für nicht wird werden es im von dem \
             des einen sich diese einem wie an sind zum haben einer auch als nach ihren sein aber alle \
             ihrer nur bei unter durch keine um kann dass daß wenn er ich wir hat war zur aus über so man \
             dieser dieses noch am vor bis jeder ihr ihre wurde mehr",
    ),
    Profile::found(
        "fr",
        "éèêëàâçîïôöùûüÿœæ",
        0.152,
        "de le la un d les l pour sur à et des en est ou dans une si que il du pas par ne sont qui n \
             être s plus peut ce sans se au autres qu a y son tout tous cette vous votre on avec aux sa \
             ses mais nous elle ils leur leurs cet ces comme même aussi fait c j je été toute dont chaque \
             personne peuvent doit lorsque où fois faire vos ni soit entre très deux chez",
    ),
    Profile::found(
        "es",
        "áéíóúñüç",
        0.168,
        "de la el en que para a y un una su se los o no del las con es por como al más esta sus le \
             este están otros ser sin ha entre estos e lo si esto ese esa pero fue son también cuando muy \
             todo toda todos hay está puede desde hasta sobre me nos ya donde quien cada usted tan mi tu \
             ni ante bajo cual cuales cuya cuyo así antes después mientras pueden debe deben tiene tienen \
             nuestro tal tales todas otra otro otras nada nadie algo algún alguna cualquier además \
             cualquiera quiere persona tener hacer solo sólo mismo misma dos vez estas estar será serán",
    ),
    Profile::found(
        "pt",
        "áàâãéêíóôõúüç",
        0.168,
        "de o para a e que um se em do ou uma seu no não com é por na como da os as sua ser mais sem \
             ao são tem à dos das pelo pela isso este esta ele ela mas foi também quando muito pode nos \
             nas aos às seus suas entre até há já está todo toda você eu cada sobre podem deve têm \
             qualquer nem num numa pelos pelas aquele essa esse isto nossa onde assim antes depois pessoa \
             ter fazer só mesmo mesma dois vez estar será serão outro outra outros outras seja todos \
             todas direito",
    ),
    Profile::found(
        "it",
        "àèéìíîòóù",
        0.16,
        "di un per il è la e in o i una a che del se si l da non come le con nel sono dei può lo al \
             cui della nella sia gli senza alla delle questa altro altri dal sulla questo ogni all dell \
             nell anche ha più ma ne su ai dalla alle degli quando essere tutti ed stato suo sua loro d \
             sul nei",
    ),
    Profile::found(
        "nl",
        "éèëïöüêíáóç",
        0.168,
        "de het een te van op en in of om is met dat voor dan niet zijn die worden heeft er wordt kan \
             deze naar dit door aan andere ook zal hebben geen bij zich alle tot als u uw je maar wat was \
             ik hij zij ze we hun nog moet wel over uit meer onder nodig kunnen",
    ),
    Profile::found(
        "sv",
        "åäöéüà",
        0.136,
        "att för på en och som i om till är eller den det av med har från de detta genom andra vara \
             dessa alla denna varje under annan någon dess sig inte ett kan du din ditt man när var ska \
             skall så vi han hon jag men där ha också efter vid än nu sin sitt sina upp ut rätt",
    ),
    Profile::found(
        "tr",
        "çğışöüâîûi\u{307}",
        0.08,
        "ve da bu bir ile için veya her olan olarak gibi daha çok en ne kadar de değil var yok ise \
             sonra önce kendi tarafından göre hiçbir o ki mi mı eğer tüm olduğu olduğunu şey şu hem ancak \
             böyle bunu bunun üzerinde üzere diğer hiç herkes herkesin hakkı ama çünkü nasıl zaman iki \
             ilk yeni edilir tıklayın içinde altında birleşmiş hürriyet insan tercih ayarlar ayrıca \
             üzerine gerekir kullanarak varsa olması mümkün şekilde",
    ),
    Profile::found(
        "vi",
        "àáâãèéêìíòóôõùúýăđĩũơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
        0.12,
        "và của các có là một không được cho người trong những với đến này khi để từ mọi như ra ở hay \
             hoặc bạn nếu thể tin trên theo do vào đó làm cũng bị về tại nhưng đã sẽ phải nào đều quyền \
             hơn thì mà số sự cả lên sau mình nó họ chúng ta tôi đang rất hai ai gì đây ngoài hoà",
    ),
    Profile::found(
        "ru",
        "ё",
        0.104,
        "в и на для или чтобы не с к по это что как при его может от то быть их время которые только \
             он так все они во будут со а я но у из за о же вы мы она бы был была были если есть до когда \
             этого который которая каждый человек имеет право ее её мне вас нас также более этот эта уже \
             без где нет под ни об",
    ),
    Profile::found(
        "ar",
        "",
        0.08,
        "في من على إلى أن عن مع هذا هذه التي الذي لا ما أو كل و كان كانت لم ذلك بين إن قد بعد قبل هو \
             هي له لها به بها فيه فيها أي غير حق الحق شخص لكل ولا وفي ومن يكون عند كما حيث ثم لن إذا حتى \
             فإن وأن وهو وهي تم منه عليه عليها الذين هناك يجب يمكن",
    ),
    Profile::found(
        "hi",
        "",
        0.16,
        "के है में की से का को और पर हैं कि यह इस एक ने या भी लिए नहीं तो हो किसी करने जो अपने कर \
             होता था थी थे वह उस किया जाता कोई अपनी सकते आप ये तक ही प्रत्येक यदि करें सकता व हर सभी अन्य \
             द्वारा तथा जा साथ गया जब रूप उसके",
    ),
    Profile::other(
        "da",
        "at på for til og i kan en er det eller et den der med som af ikke har de ved fra være skal \
             om andre alle have anden mellem kun deres du din dit når hvis denne dette disse sig men også \
             efter jeg han hun ret enhver blive bliver",
    ),
    Profile::other(
        "no",
        "og til har å i som rett eller enhver av for er de på skal den med alle en det denne da mot \
             ikke et om kan ikkje dei frå ein vere eit ved fra være når hvis du men også etter jeg han \
             hun dette disse blir seg dem mellom",
    ),
    Profile::other(
        "ca",
        "de a la per el que d l i un una o si del en les els es no al amb és s com més ha està hi \
             sense altres també dels se aquest aquesta ser només cada seva als són aquests tenen té entre \
             dret persona tota qualsevol ni però pel",
    ),
    Profile::other(
        "gl",
        "de o a que para se e un ou seu unha os do non da no as en na como por máis súa ten sen dos \
             co á tamén das esta só polo seus dun ser súas lle outros entre este pola toda persoa dereito \
             ao aos cando ningún pode desde sobre isto ese hai pero xa polas todos todo outro outra mesmo \
             mesma nun nunha nos nas cal quere el ela foi son está eu vostede calquera cada até moi \
             pódese están cos uns",
    ),
    Profile::other(
        "ro",
        "de pentru a pe și în să sau se va este un mai o care ce această nu cu la fi fără ale unei \
             unui al sunt ca din orice are dreptul prin său sa lui le i ori",
    ),
    Profile::other(
        "af",
        "die en van reg het te in of tot elkeen om sal nie n word vir is op deur hierdie enige wat \
             aan sy gelyke as ʼn hulle met ook moet dat by uit geen daar",
    ),
    Profile::other(
        "fy",
        "en fan de it yn te op elk e hat of dy syn in foar wurde dat t om sil mei troch oan hawwe \
             nimmen ek as wurdt",
    ),
    Profile::other(
        "lb",
        "an d a all op vun fir déi de huet ze der odder gin as séng sech eng am mat en duerf nët dat \
             ass",
    ),
    Profile::other(
        "oc",
        "de la e d a que l se le o lo los las dins sa un una persona dels amb del son sus per tot pas \
             es al pel sos sas mai aver avèr cada tota qu en totes totas sens dreit drech deu",
    ),
    Profile::other(
        "ast",
        "de la a que d los o en se el les del nun una un al escontra y toa so ye pa lo col pola tou \
             persona",
    ),
    Profile::other(
        "sco",
        "the and o tae in hes richt be awbody shal or his richts a for as til ony aw is wi that this",
    ),
    Profile::other(
        "eo",
        "kaj la de ĉiu en aŭ je estu por ajn pro kiu estas ke ĉiuj ĉi tiu tio kontraŭ al oni ne li \
             sia kun",
    ),
    Profile::other(
        "tl",
        "sa ng at ang mga na may bawat y ay o mang walang kanyang ito isang di nang pamamagitan",
    ),
    Profile::other("id", "yang untuk dan dapat atau di dengan ini ke pada tidak akan dari dalam"),
    Profile::other(
        "la",
        "et in ad aut suae vel quae ut est omnis omnes atque cum sunt non ab ex per qui quod",
    ),
    Profile::other("fo", "og at í til hava fyri øll sum ella skal við av um er eru hevur ein ikki"),
    Profile::other("ku", "û ku ji bi di de an xwe li her bo kirin yên"),
    Profile::other(
        "uk",
        "у на для з і або до щоб не є за які що та бути його це від як так чи під при їх в має",
    ),
    Profile::other("bg", "на и да в всеки има или се за е бъде от трябва не с като че към по при тази са ще"),
    Profile::other("mk", "на и да се во секој има или со ќе е што од за ја не без им го"),
    Profile::other("sr", "и у да на свако има или се су не је за као који од"),
    Profile::other("be", "і на ў кожны мае або яго што не у быць да для ад пры з як"),
    Profile::other("fa", "به برای و در از را که است این با شود شده"),
    Profile::other("ur", "اور کے کی کا کو ہے میں سے"),
    Profile::other(
        "mr",
        "आहे आणि या व असे त्या हा ही हे तर केले करणे साठी किंवा ते जे असेल करा आपल्या नाही पाहिजे आहेत त्यांना त्याचा त्याच्या कोणत्याही सर्व अशा यांच्या त्याला आला येईल म्हणून झाले",
    ),
    Profile::other("ne", "र छ को हुने गर्ने मा लाई हुनेछ गरेको भएको वा छैन प्रत्येक"),
    Profile::other("bho", "के में से आ बा सब ओकर हर केहू एह भी आपन मैं अछि केर आओर होखे कवनो आदमी मिले चाहीं ई"),
    Profile::other(
        "hu",
        "a az és egy meg vagy hogy nem van ki ez kell lehet el azt minden amely való már csak ha joga \
             is be",
    ),
    Profile::other("az", "və bir bu ki ilə üçün hər heç öz hüququ şəxs də olan ya daha kimi edilə əsas onun"),
    Profile::other(
        "sw",
        "na ya haki kwa wa kila mtu au za ana katika ni yake ama kuwa watu wote la cha yoyote",
    ),
    Profile::other(
        "rm",
        "da la il e ha in ils las ed dal ch ses uman mincha dret persuna ad o dals ina scadin libertà \
             protecziun cun per sia naziun u en che è na vegn pon ston tuttas tut",
    ),
    Profile::other("cy", "a y gan yn mae hawl r bawb eu ac o neu i unrhyw u mewn ni na yr neb sy â"),
    Profile::other("nds", "un de dat en to is hett een oder mit in op nich sien vun för wat"),
    Profile::other("crh", "ve er bir aqqı insan bu ya da içün ile olmaq onıñ eki haq aqqına"),
    Profile::other("ms", "dan yang untuk hak di dengan setiap atau adalah orang dalam tidak ini itu"),
    Profile::other("sq", "e të në për dhe që me një ka i se do nuk ose nga"),
    Profile::other("eu", "eta du edo da ez ere izateko dute bat hau baina"),
    Profile::other("mt", "l u li tal il għandu ta għal fil m ma mill f jew"),
    Profile::other("pl", "w na i aby to do z lub nie się są po jest dla ma jak o za że przez od czy"),
    Profile::other("fi", "ja on tai ei että kun se myös ovat kuin vain voi jos"),
    Profile::other("cs", "se a na v je nebo pro k do s že to si ve z o být jak i"),
    Profile::other("hr", "na i za u se je ili bi s da ne ima će su kao to od"),
    Profile::other("sl", "za v na je in lahko da ali se ki z s ne to"),
    Profile::other("mag", "के हई में से अउर और कि एगो ई ओकर सब हे कोनो सकऽ आउर"),
    Profile::other(
        "co",
        "di a e in u ogni hà per l dirittu da si o ch è un à libertà so i chì una nè dritti tutti pò",
    ),
    Profile::other(
        "frp",
        "a la de lo tot et ou en que drêt lè tota dè sa por son pas dzin drê drâi tsaque l d pè chè \
             lé lou",
    ),
    Profile::other("pcm", "di dey to for and dem of wey no get na go im everi evri dat pipol don rait make"),
    Profile::other("wa", "a l di et les li on k ki po d tos tot des èt dè ø n ou co dreut"),
    Profile::other("ia", "le de e a del in o que es un su omne persona tote non pro per al con ha"),
    Profile::other("lad", "i de la el en tiene toda persona derecho a o su las los ke no se"),
    Profile::other("pcd", "i o d al chés ches et dins ech su l pou in tout sin tous aveuc qu"),
    Profile::other("rgn", "e a u da i la d in dl un di"),
    Profile::other("lua", "wa ne bua mu muntu bu ku udi ya kudi wonso ka"),
];
