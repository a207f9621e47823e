"""The sentences of the recipe's language: what people say every day.

A rule is a name and its alternatives, one a line. In a line, `{class}` is a word of that class of
`lexicon.py` or another rule, `{class+s}` its plural, `{class+ed}` its past, `{class+ing}` its
ing-form, `{a class}` the word with its article, `(x|y)` a choice and `[x]` something that may be
left out. A number before a line is its weight (one if absent); the weights keep rare words
from being too rare to learn. No rule may use itself, so the language is finite and can be counted.
"""

RULES = """
sentence
    {weather}
    {times}
    {dates}
    {numbers}
    {places}
    {family}
    1.5 {eating}
    2 {things}
    {animals}
    {feelings}
    1.5 {doing}
    1.5 {phone}
    {talk}
    1.5 {story}
person
    0.5 {man}
    0.5 {woman}
    1.5 my {relative}
relative
    {kin_m}
    {kin_f}
    {kin}
who
    0.5 {man}
    0.5 {woman}
    1.5 my {relative}
    3 the {job}
    0.5 the {crowd}
people
    1.5 my (parents|friends|neighbors)
    0.5 the {crowd+s}
clock
    {hour} o'clock
    half past {hour}
    (a quarter|{tens_small}|{minute_small}) (past|to) {hour}
    {hour} {minute}
tens_small
    ten
    twenty
    twenty five
minute_small
    five
    ten
    twenty
minute
    0.5 fifteen
    0.5 thirty
    1.5 {teen}
    0.5 {tens_low} [{digit}]
    1.5 oh {digit}
tens_low
    twenty
    thirty
    forty
    fifty
date
    {month} {ordinal}
    {month} the {ordinal}
    the {ordinal} of {month}
    {month} twenty {ordinal_low}
ordinal_low
    first
    second
    third
    fourth
    fifth
    sixth
    seventh
    eighth
    ninth
age
    {teen}
    2 {tens} [{digit}]
number
    0.5 {tens} [{digit}]
    0.5 {tens} {digit}
    1.5 {teen}
    0.5 {digit} hundred
    0.5 {digit} thousand
    1.5 {digit} hundred and {tens}
past_when
    yesterday [{part}]
    1.5 last (night|week|month|year|{weekday}|{season})
    0.5 on {weekday}
    0.5 in {month}
    0.5 this {part}
    at {clock}
    1.5 (two|three|four|five|six|seven|eight|nine|ten) (minutes|hours|days|weeks|months|years) ago
soon
    tomorrow [{part}]
    1.5 next (week|month|year|{weekday}|{season})
    0.5 on {weekday}
    0.5 in {month}
    0.5 tonight
    1.5 at {clock}
    in (two|three|four|five|six|seven|eight|nine|ten) (minutes|hours|days|weeks|months|years)
spot
    0.5 on the {furniture}
    0.5 under the {furniture}
    0.5 behind the {furniture}
    next to the {thing}
    0.5 in the {room}
    0.5 in the {box}
    2 near the {plant}
furniture
    bed
    bench
    table
    desk
    shelf
    sofa
    stove
    chair
    piano
    carpet
box
    box
    basket
    drawer
    cupboard
    suitcase
    car
    bucket
    purse
kind
    {size}
    1.5 {quality}
    0.5 {color}
    1.5 {stuff}
weather
    0.5 the weather in {place} is {sky} [{day_now}]
    1.5 the weather in {city} is {degree} {sky} and {sky}
    0.5 the weather in {place} was {sky} {past_when}
    1.5 it is {degree} {sky} and {sky} in {place} [{day_now}]
    it was {sky} and {sky} in {city} (all day|in {month})
    1.5 there (will be|was) (some|no|more) {storm} and {storm} {storm_where}
    0.5 we had {storm} and {storm} (in {month}|in {country}|last {weekday})
    1.5 {season}s in {country} are {degree} {sky}
    0.5 the {part} was {sky} and the {nature} was {sky}
    0.5 i (like|love|hate) the {storm} and the {storm} in {season}
    1.5 the {storm_one} came from the (north|south|east|west)
    it will be {number} degrees in {city} {day_now}
    1.5 is it {sky} or {sky} in {place} {day_now}
    0.5 what is the weather like in {place}
    take your {wear} because it is {sky} outside
    1.5 the (sky|air|sun|moon) over the {nature} (is|was|looks|looked) {lovely}
    it {often} (rains|snows) in {country} [in {month}]
place
    {city}
    1.5 {country}
storm_where
    in {place}
    near the {nature}
    on {weekday}
storm_one
    fog
    frost
    hail
    rain
    sleet
    snow
    wind
    thunder
lovely
    beautiful
    clear
    bright
    strange
day_now
    0.5 today
    tonight
    now
    0.5 tomorrow
    0.5 this {part}
    2 in {month}
times
    0.5 it is {clock} [in the {part}]
    0.5 the time in {place} is {clock}
    0.5 the {vehicle} leaves at {clock}
    1.5 the {vehicle} from {place} (arrives|leaves|came|left) at {clock}
    1.5 the {shop} opens at {clock} on {weekday+s}
    0.5 (breakfast|lunch|dinner|supper) is at {clock}
    0.5 we (have|had) {meal} at {clock} [on {weekday+s}]
    2 {name} (gets up|goes to bed|comes home|starts to {hobby}) at {clock}
    0.5 the {event} (starts|is) at {clock} [{day_only}]
    wake me up at {clock} (tomorrow|on {weekday})
    please come at {clock} on {weekday} {part}
    i waited for {name} (until|from) {clock}
    0.5 is the {shop} open at {clock}
    0.5 at {clock} the {job} {act+ed} {manner}
    1.5 what time does the {vehicle} leave for {place}
    0.5 the {event} (took|was) {few} (hours|minutes|days) long
name
    {man}
    {woman}
day_only
    0.5 today
    0.5 tomorrow
    1.5 on {weekday}
dates
    0.5 today is {weekday} {date}
    my birthday is [on] {date}
    2 {name} was born on {date} in {place}
    0.5 my favorite season is {season}
    0.5 my favorite (day|month) is {favorite_time}
    1.5 the {event} is on {weekday} the {ordinal} of {month}
    0.5 {holiday} (is|was) on a {weekday} in {place}
    1.5 we (celebrate|celebrated) {holiday} with {person}
    0.5 the {ordinal} of {month} (is|was) a {weekday}
    {name} is going to {place} in {month}
    (we|they) went to {place} for {holiday}
    0.5 {month} is the {ordinal} month of the year
    the {shop} is closed on {weekday+s} [in {month}]
    0.5 (see you|call me) on {weekday} the {ordinal}
    1.5 {name} lives on the {ordinal} floor [near the {shop}]
    1.5 this is the {ordinal} (day|week|{event}) in {place}
favorite_time
    1.5 {weekday}
    0.5 {month}
numbers
    {number} plus {number} is more than {number}
    0.5 there are {number} {goods+s} in the {room}
    0.5 there are {number} {crowd+s} in the {shop}
    the {thing} costs {number} dollars
    the {color} {wear} cost {number} dollars
    0.5 {name} is {age} years old
    0.5 my {relative} is {age} years old today
    1.5 {city} is {number} miles from {city}
    the {color} {vehicle} has {number} (seats|windows)
    0.5 i saw {number} {flock+s} (near|in|by) the {nature}
    0.5 {name} has {few} {flock+s} and {few} {flock+s}
    0.5 the answer is {number} not {number}
    please count from {few} to {number} {manner}
    2 {name} {handle+ed} {number} {goods+s}
    1.5 the {nature} is {number} (miles|feet) (long|wide|away|high)
    0.5 my (number|room) is {number}
    half of the {crowd+s} (came|left) {soonish} {past_when}
soonish
    early
    late
    together
places
    0.5 {name} (lives|works|is|was|stayed) in {city}
    0.5 {name} is from {city} in {country}
    i would like to (visit|see) {place} (again|one day|in {month})
    we drove from {city} to {city} [by {vehicle}]
    {name} traveled to {country} by {vehicle}
    the {shop} is (near|behind|next to|far from) the {shop}
    0.5 where is the {shop} (please|in {city})
    0.5 is there {a shop} near the {shop}
    0.5 turn (left|right) at the {shop}
    go straight (past|to) the {shop} and turn (left|right)
    0.5 the {nature} (in|near) {place} is {kind}
    1.5 they (walked|ran|drove) (across|around|through) the {nature} [to the {shop}]
    the people in {country} speak {tongue}
    1.5 do you speak {tongue} or {tongue} in {country}
    2 {name} (speaks|studies) {tongue} and {tongue} in {city}
    0.5 we met {a job} from {country}
    2 the {quality} {shop} in {city} (is|was) {quality}
    0.5 the {vehicle} from {city} is (late|early|full)
    0.5 there is {a nature} (near|behind) the {shop}
    0.5 have you ever been to {place} in {month}
    1.5 our {hotel} is between the {shop} and the {nature}
hotel
    house
    apartment
    camp
family
    0.5 my {relative} is {a job}
    1.5 my {relative} works at the {shop} in {city}
    my {relative} and my {relative} live in {city}
    0.5 {man} and his {relative} (like|play|love) {sport}
    {woman} and her {relative} (like|play|love) {sport}
    0.5 this is my {relative} {man_or_woman}
    0.5 {name} married {a job} from {place}
    0.5 his {relative} is {degree} {nature_of}
    0.5 my {relative} has {few} (boys|girls|children) and {a animal}
    1.5 i have {few} (brothers|sisters|cousins|friends) in {place}
    1.5 {who} is {degree} {nature_of} and {nature_of}
    1.5 {who} is (taller|older|younger|stronger) than {who}
    0.5 her {kin_f} wants to be {a job}
    0.5 his {kin_m} wants to be {a job}
    {woman} plays the {music} and {man} plays the {music}
    2 my {relative} teaches {subject} and {subject} in {city}
    {name} has (blue|brown|green|gray) eyes and (long|short|dark|red) hair
man_or_woman
    {man}
    {woman}
eating
    0.5 i would like [some] {food} and {food} please
    0.5 i would like {a glass} of {drink} please
    0.5 {name} (had|wants|likes) {food} with {food} for {meal}
    1.5 we {prepare+ed} {food} and {vegetable+s} for {meal}
    1.5 can i have {a pack} of {eatable} and {a glass} of {drink}
    {name} {handle+ed} {a pack} of {eatable}
    {few} (boxes|bottles|glasses) of {eatable} please
    {who} {prepare+ed} the {food} (in|with) {butter}
    0.5 do you (like|eat|want|have) {fruit+s} or {fruit+s}
    1.5 the {food} (is|was|tastes) {degree} {taste} and {taste}
    0.5 the {vegetable+s} (are|were) {taste} and {taste}
    0.5 this {food} is too {taste} for {person}
    0.5 i (never|always|often) eat {food} {meal_when}
    0.5 put the {food} (in|on|next to) the {dish}
    {name} {prepare+ed} the {vegetable+s} and the {food}
    0.5 would you like {drink} or {drink} [with your {meal}]
    1.5 my favorite (food is {food}|drink is {drink}|fruit is the {fruit}|snack is the {snack})
    4 {a fruit} {a snack} and {a glass} of {drink} please
    1.5 {name} ate {few} {snack+s} and {a fruit}
    1.5 the {cook} {prepare+ed} the {snack+s} and the {food}
    0.5 we need {food} {food} and {drink}
    2 don't {prepare} the {snack+s} and the {fruit+s} {day_now}
    3 {prepare} the {vegetable+s} with {food} and {food}
    0.5 there are {few} {fruit+s} and {few} {snack+s} in the {dish}
butter
    butter
    garlic
    ginger
    honey
    salt
eatable
    1.5 {fruit+s}
    0.5 {vegetable+s}
    {food}
glass
    bottle
    cup
    glass
    jar
    can
meal_when
    0.5 for {meal}
    0.5 in the {part}
    1.5 on {weekday+s}
dish
    bowl
    plate
    basket
    oven
cook
    cook
    baker
    waiter
things
    0.5 the {thing} is (on|under|behind|next to) the {thing}
    0.5 the {color} {thing} is {spot}
    0.5 i {handle+ed} my {thing} {past_when}
    0.5 {name} {handle+ed} the {kind} {thing}
    0.5 where did you {handle} the {thing}
    2 (please|don't) {handle} or {handle} the {kind} {thing}
    0.5 this {thing} is made of {stuff}
    2 {name} has {a kind} {thing} and {a kind} {thing}
    1.5 {woman} wore {a color} {wear} and {a color} {wear}
    1.5 {man} {handle+ed} his {color} {wear} {past_when}
    2 {who} {handle+ed} {a quality} {thing} {past_when}
    0.5 my {wear} is {degree} {quality} and {quality}
    1.5 these (boots|gloves|shoes|socks|shirts) are too {size} for {name}
    0.5 whose {quality} {thing} is this
    0.5 can you {handle} and {handle} this {thing}
    0.5 {name} has to {handle} {a size} {thing}
    0.5 i (want|need|have) to {handle} and {handle} {a thing}
    1.5 the {goods+s} in the {room} (are|were|look|looked) {quality}
    0.5 the old {vehicle} is {color} and {quality}
    0.5 he {handle+ed} it and she will {handle} it {soon}
    0.5 there is {a thing} {spot}
    0.5 we will {handle} the {goods+s} {soon}
    the {stuff} {thing} is (yours|mine|his)
animals
    0.5 the {animal} is {degree} {size} and {quality}
    2 {a animal} is (bigger|smaller|faster|slower|louder) than {a animal}
    0.5 there is {a animal} (in|near|behind) the {plant}
    1.5 the {color} {animal} (sleeps|sat|hid|lives) {spot}
    0.5 {name} has {a animal} and {few} {flock+s}
    0.5 the {flock+s} (live|sleep|eat|play) (in|near|by) the {nature}
    1.5 i {often} feed the {flock+s} and the {flock+s}
    have you ever seen {a animal} in {country}
    0.5 the {animal} {treat_animal} the {animal}
    my {relative} is afraid of {flock+s} and {flock+s}
    {a kind} {plant} grows near the {nature}
    0.5 the {plant+s} in the garden are {color} and {color}
    1.5 the {animal} under the {plant} is {quality}
    0.5 {name} {treat+ed} the {animal} {manner}
    4 do {flock+s} eat {plant+s} or {fruit+s}
    1.5 {who} (painted|planted|cut|watered) the {plant+s} {past_when}
treat_animal
    chased
    bit
    followed
    watched
    caught
    met
    helped
feelings
    0.5 i am {degree} {feeling} [today]
    0.5 {who} is {feeling} (today|tonight|now|again)
    {name} was {feeling} and {feeling} {past_when}
    0.5 are you {feeling} or {feeling} {day_now}
    why are you so {feeling} and {feeling}
    0.5 we were {feeling} after the {event}
    1.5 {people} (are|were) {degree} {feeling}
    my {body} hurts (really|very|quite|so) badly (today|tonight|now)
    ({man} hurt his|{woman} hurt her) {body} (at|near|behind) the {shop}
    he hurt his {body} and his {body}
    the doctor looked at my {body} and my {body}
    2 {who} (feels|felt|looked) {feeling} {day_or}
    0.5 don't be {feeling} or {feeling} my {friend}
    0.5 the {crowd} was {feeling} because of the {event}
    1.5 {name} is {nature_of} but {name} is {nature_of}
    1.5 the {feeling} {crowd} {act+ed} {manner}
    i was too {feeling} to {act} or {act}
    0.5 you look {feeling} (today|tonight|this {part})
    3 my {body} and my {body} are (cold|warm|wet|sore|better)
friend
    friend
    child
day_or
    0.5 today
    0.5 yesterday
    1.5 after the {event}
    1.5 about the {event}
doing
    0.5 {who} {act+ed} {manner}
    0.5 {who} {act+ed} (at|in|near) the {shop} {past_when}
    0.5 i like to {hobby} and to {hobby} (in {season}|with {name})
    1.5 {name} likes {hobby+ing} and {hobby+ing} {manner_or}
    {name} {hobby+ed} and {hobby+ed} with {name}
    1.5 we (can|could|will) {hobby} or {hobby} {soon}
    0.5 {who} {hobby+ed} {manner_or}
    0.5 {who} {treat+ed} {who} {past_when}
    0.5 i {treat+ed} {name} at the {shop}
    0.5 can you {treat} or {treat} the {job}
    1.5 i (will|can't|won't) {treat} or {treat} {who}
    1.5 {name} wants to {treat} and {treat} {who}
    0.5 they {act+ed} in the {room} {past_when}
    0.5 do you want to play {sport} {soon}
    1.5 (he|she) plays {sport} and {sport} {on_days}
    {name} studies {subject} and {tongue} {on_days}
    1.5 {name} (began|started|wanted) to {act} {manner}
    0.5 please don't {act} or {act} in the {room}
    let's {hobby} (near|by) the {nature} {soon}
    i have to {act} and {act} before the {event}
    2 the {crowd+s} {act} {manner} in the {room}
    1.5 (i'm|we're) {hobby+ing} and {hobby+ing} at the {shop}
    {name} practices the {music} {on_days}
    0.5 {name} likes to {act} in the {part}
manner_or
    {manner}
    0.5 every {part}
    1.5 {on_days}
on_days
    1.5 on {weekday+s}
    every {weekday}
    0.5 in the {part}
phone
    0.5 please press {key} to {phone_act} or {phone_act}
    press {key} for the {line} menu
    2 to {phone_act} or {phone_act} the {message} press {key}
    please enter your (number|password|extension) followed by the pound key
    1.5 the {line} is {fault} or {fault}
    2.5 your {line} has been {done} and {done}
    you have {few} (new|old|urgent|saved) messages
    0.5 you have no (new|old|urgent|saved|more) messages
    thank you for calling the {shop} in {city}
    please hold while i (try|transfer) your call
    (hello|hi|good {part}) this is {name} speaking
    {name} is on the phone for {who}
    can i (speak|talk) to {who} please
    0.5 who is calling please
    0.5 i will call you back (at {clock}|on {weekday}|{soon})
    please leave {a message} after the tone
    0.5 {name} is not available {day_now}
    dial {key} {key} {key} for {name}
    0.5 my (telephone|phone) number is {digit} {digit} {digit} {digit}
    (sorry|i am sorry) that is not a valid {line}
    1.5 the {line} you (entered|dialed) is {fault}
    3 {phonetic} {phonetic} {phonetic}
    1.5 {phonetic} {digit} {phonetic} please (repeat|reply|answer)
    0.5 {name} called {past_when} and left a message
    goodbye {name} and thank you for your call
    1.5 all (lines|operators) are busy (now|at the moment)
    0.5 your call will be answered in {few} minutes
    0.5 there are {few} {crowd+s} in the conference
    0.5 the {line} is (in use|on hold) {day_now}
    the caller from {city} did not leave a (name|message|number)
    this feature is not available on this line
done
    cancelled
    changed
    deleted
    recorded
    saved
    received
    disabled
message
    message
    greeting
    recording
    call
    number
    name
talk
    1.5 (hello|hi) {name} how are you [{day_now}]
    good {part} {name} did you sleep well
    0.5 nice to meet you {name}
    0.5 thank you for the {quality} {thing} {name}
    excuse me where is the {shop}
    0.5 happy (birthday|{holiday}) {name}
    0.5 what is your name and where are you from
    0.5 my name is {name} and i am {a job}
    0.5 how (old|big|heavy) is (this|that|your) {thing}
    1.5 what color is (your|his|her) {quality} {wear}
    0.5 can you help me with my {thing} please
    2 yes i (think|know|hope) {name} is {feeling} and {feeling}
    0.5 no i don't (like|{handle}) {color} {plant+s}
    1.5 maybe we should {hobby} {soon}
    0.5 i don't know where my {thing} is
    1.5 have a (nice|good) (day|trip|evening) in {place} {name}
    0.5 could you speak more {manner} please
    1.5 please tell {who} that i am {feeling}
    what did {name} say about the {event}
    1.5 i agree with {name} about the {event} in {city}
    0.5 who {handle+ed} my {thing}
    where does {name} {hobby} {on_days}
    did {name} enjoy the {event} {past_when}
    2.5 let me {handle} or {handle} your {thing}
    0.5 i hope the {event} was {quality}
story
    once there was {a quality} {job} who had {a animal}
    1.5 one day {a animal} {treat_animal} {a animal} near the {nature}
    {name} {handle+ed} {a thing} and {handle+ed} it
    0.5 when {name} {act+ed} everybody {act+ed}
    1.5 the {animal} {act+ed} and the {crowd} {act+ed}
    0.5 {name} opened the {door} and saw {a animal}
    0.5 a {stranger} from {place} {treat+ed} the {job}
    the {job} gave {name} {a quality} {thing}
    after {meal} {name} {hobby+ed} and {hobby+ed}
    0.5 then {who} {act+ed} and went home
    at last they found the {stuff} {thing} {spot}
    1.5 {name} lost {a thing} on the {vehicle} to {city}
    the {quality} {job} lived in {a size} {home}
    1.5 nobody {treat+ed} or {treat+ed} the {feeling} {job}
    0.5 in the end {who} was {feeling}
    1.5 (suddenly|later|finally|then) the {animal} {jumped} (over|into|behind|under) the {thing}
    0.5 {name} and {name} {hobby+ed} together in {month}
    everybody in the {village} {treat+ed} or {treat+ed} {who}
    1.5 {name} wrote a (book|story|song|letter) about {a animal} and {a animal}
    0.5 the {job} and the {job} {hobby+ed} (together|all day)
door
    gate
    window
    box
    drawer
stranger
    stranger
    visitor
    tourist
    guest
home
    house
    castle
    cave
    palace
village
    village
    city
    family
    school
jumped
    jumped
    fell
    climbed
    flew
"""
