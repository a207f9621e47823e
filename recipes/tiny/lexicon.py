"""The word classes of the recipe's language: everyday English, as spoken, in lower case.

A class is its words separated by spaces; an underscore joins the words of one entry ("ice_cream").
`grammar.py` says how the classes are used; `language.py` makes plurals and verb forms from them.
"""

CLASSES = {
    # people
    "man": """adam albert andrew anthony arthur ben charles daniel david edward frank george henry
        jack james john joseph kevin leo luke mark martin max michael oliver oscar paul peter
        richard robert sam simon thomas walter william""",
    "woman": """alice amy anna carol clara diana emily emma grace hannah helen jane julia karen kate
        laura linda lisa lucy maria martha mary megan nancy nora olivia rachel rose ruth sandra
        sarah sophie susan""",
    "kin_m": "brother father grandfather uncle son husband nephew",
    "kin_f": "sister mother grandmother aunt daughter wife niece",
    "kin": "cousin friend neighbor boss",
    "job": """actor artist baker barber builder butcher carpenter clerk coach cook dancer dentist
        doctor driver engineer farmer gardener guide judge lawyer librarian mechanic musician nurse
        painter pilot plumber poet reporter sailor scientist secretary singer soldier student tailor
        teacher waiter writer""",
    "crowd": "boy girl child man woman baby visitor tourist stranger guest",
    # places
    "city": """amsterdam athens atlanta baltimore barcelona beijing berlin bombay boston brussels
        budapest cairo calcutta chicago cleveland copenhagen dallas denver detroit dublin edinburgh
        florence geneva glasgow hamburg havana helsinki honolulu houston istanbul jerusalem lima
        lisbon liverpool london madrid manchester melbourne memphis miami milan montreal moscow
        munich nairobi naples orlando oslo oxford paris philadelphia phoenix pittsburgh portland
        prague rome seattle shanghai singapore stockholm sydney tokyo toronto vancouver venice
        vienna warsaw zurich""",
    "country": """america argentina australia austria belgium brazil canada china cuba denmark egypt
        england finland france germany greece holland hungary india ireland israel italy japan kenya
        mexico morocco norway peru poland portugal russia scotland spain sweden switzerland turkey
        wales""",
    "tongue": """arabic chinese dutch english french german greek hebrew italian japanese korean
        latin polish portuguese russian spanish swedish turkish""",
    "shop": """airport bakery bank bookstore castle church cinema farm gallery garage gym hospital
        hotel library market museum office park pharmacy pool restaurant school stadium station
        supermarket theater zoo""",
    "room": "attic basement bathroom bedroom garden hall kitchen living_room",
    "nature": """beach bridge canyon cave coast desert field forest harbor hill island lake meadow
        mountain ocean river valley village waterfall""",
    # time
    "weekday": "monday tuesday wednesday thursday friday saturday sunday",
    "month": """january february march april may june july august september october november
        december""",
    "season": "spring summer autumn winter",
    "part": "morning afternoon evening",
    "meal": "breakfast lunch dinner supper",
    "holiday": "christmas easter thanksgiving halloween",
    "event": "wedding party concert meeting game lesson race show festival parade picnic exam",
    # numbers
    "hour": "one two three four five six seven eight nine ten eleven twelve",
    "digit": "one two three four five six seven eight nine",
    "few": "two three four five six seven eight nine ten",
    "teen": "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
    "tens": "twenty thirty forty fifty sixty seventy eighty ninety",
    "ordinal": """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
        thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
        thirtieth""",
    # weather
    "sky": """awful beautiful chilly cloudy cold cool damp dark dreadful dry foggy freezing gray hot
        humid icy lovely mild misty nice pleasant rainy snowy stormy sunny terrible warm wet windy
        wonderful""",
    "storm": "clouds fog frost hail lightning rain sleet snow sunshine thunder wind showers",
    "degree": "a_little quite rather really so too very extremely pretty",
    # food
    "fruit": """apple apricot banana berry cherry grape lemon mango melon orange peach pear
        pineapple plum strawberry""",
    "vegetable": """bean cabbage carrot cucumber mushroom onion pea pepper potato pumpkin radish
        tomato""",
    "snack": "burger cookie egg muffin pancake pie pizza sandwich sausage waffle",
    "food": """bacon beef bread butter cake cereal cheese chicken chocolate corn fish garlic ginger
        ham honey ice_cream jam lamb mustard oatmeal pasta pork pudding rice salad salmon salt soup
        spinach steak stew sugar toast turkey yogurt""",
    "drink": "beer cider cocoa coffee juice lemonade milk tea water wine",
    "pack": "bag basket bowl box jar plate",
    "taste": "bitter burnt delicious fresh rotten salty sour spicy stale sweet",
    # things
    "thing": """basin bed bell bench bicycle blanket book box brush bucket button calendar camera
        candle card carpet chair clock coin computer cupboard curtain desk dish door drawer fence
        flag flute fork gift guitar hammer kettle key knife ladder lamp letter magazine map mirror
        needle newspaper notebook oven parcel pen pencil piano picture pillow pipe pot purse radio
        ring rope saw shelf shovel sofa spoon stamp stove suitcase table telephone television tent
        ticket towel toy trumpet umbrella vase violin wallet watch wheel window""",
    "goods": """book box candle chair coin door flag key lamp letter map picture table ticket toy
        window""",
    "vehicle": "airplane boat car ferry plane ship taxi train tram truck van motorcycle",
    "wear": """belt blouse boot cap coat dress glove hat helmet jacket necklace scarf shirt shoe
        skirt sock suit sweater tie uniform""",
    "stuff": """brick copper cotton glass gold iron leather paper plastic silk silver steel stone
        wood wool""",
    "color": "black blue brown gold gray green orange pink purple red silver white yellow",
    "size": "big enormous huge large little long small short tall thick thin tiny wide heavy",
    "quality": """ancient broken cheap clean clever dirty dusty empty expensive fancy famous
        favorite funny hard lovely modern narrow neat new noisy odd old ordinary perfect plain
        precious pretty quiet rare round rusty sharp shiny simple smooth soft special strange strong
        useful weak wonderful young""",
    "animal": """ant bear bee bird butterfly camel cat chicken cow crab crow deer dog dolphin donkey
        duck eagle elephant fox frog giraffe goat goose horse kangaroo kitten lamb lion lizard
        monkey mouse owl parrot penguin pig pigeon pony puppy rabbit rat rooster seal shark sheep
        snail snake spider squirrel swan tiger turkey turtle whale wolf zebra""",
    "flock": """bee bird butterfly cat chicken cow dog duck frog goat goose horse lion monkey mouse
        owl pig pony puppy rabbit sheep snake spider""",
    "plant": "bush daisy flower fern leaf lily oak palm rose tree tulip vine weed",
    # people's insides and outsides
    "feeling": """afraid angry annoyed ashamed bored brave calm cheerful confident confused curious
        delighted disappointed eager embarrassed excited frightened glad grateful happy hopeful
        hungry jealous lonely lucky nervous proud relaxed sad scared serious shy sick sleepy sorry
        surprised thirsty tired upset worried""",
    "nature_of": """clever friendly funny generous gentle honest kind lazy patient polite rude
        selfish silly stubborn""",
    "body": """ankle arm back chest ear elbow eye finger foot hand head heel hip knee leg neck nose
        shoulder stomach throat thumb toe tooth wrist""",
    "manner": """bravely carefully calmly gently happily loudly patiently politely proudly quickly
        quietly sadly slowly softly""",
    "often": "always never often rarely sometimes usually",
    "sport": "baseball basketball cards chess football golf hockey soccer tennis volleyball",
    "music": "flute guitar harp piano trumpet violin",
    "subject": "art biology chemistry geography history mathematics music physics poetry science",
    # verbs: base, or base/past where the past is irregular
    "hobby": """camp climb cook dance draw/drew hike jog knit paint read/read run/ran sail sing/sang
        skate swim/swam travel write/wrote""",
    "act": """arrive cough cry dream/dreamed laugh leave/left relax rest scream shout sleep/slept
        smile sneeze stay wait walk wave whisper work yawn""",
    "handle": """borrow break/broke bring/brought buy/bought carry clean choose/chose drop
        find/found fix forget/forgot hide/hid hold/held keep/kept lose/lost move need open paint
        pull push repair return see/saw sell/sold send/sent steal/stole take/took touch use want
        wash""",
    "treat": """answer call catch/caught follow hate help invite kiss know/knew like love marry
        meet/met remember see/saw teach/taught thank visit""",
    "prepare": "bake boil burn/burnt chop cook cut/cut eat/ate fry serve taste",
    # the telephone
    "key": "pound star zero one two three four five six seven eight nine",
    "fault": "busy disabled full invalid locked unavailable wrong",
    "line": """call conference connection extension line mailbox message number operator password
        recording""",
    "phone_act": "cancel delete enter hear record repeat reply save transfer",
    "phonetic": """alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike
        november oscar papa quebec romeo sierra tango uniform victor whiskey yankee zulu""",
}

PLURALS = {
    "child": "children",
    "goose": "geese",
    "leaf": "leaves",
    "man": "men",
    "mouse": "mice",
    "sheep": "sheep",
    "woman": "women",
}
"""Plurals that follow no rule."""

CONSONANTS = {"uniform", "useful"}
"""Words with "a" although they are written with a vowel."""

DOUBLED = {"chop", "drop", "jog", "knit", "run", "swim"}
"""Verbs that double their last letter before -ed and -ing."""
