"""Capitalised words that are nobody's name: what radiology reports are full of.

A word that is missing here costs a `[name]` where an eponym stood, never a name that stays: the rule that reads
these lists takes every other capitalised word inside a sentence for a name. Extend it in the config (`keep_words`).
"""

from __future__ import annotations

import regex


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: People, firms and places that signs, devices, diseases and classifications are called after; a part of a hyphenated
#: word each.
EPONYMS = words_of(
    """
    achilles addison agatston alzheimer amplatz ann apgar arbor arnold aschoff askin aspen asperger bankart
    barcelona barrett basedow beau beck behcet behçet bezold billroth bing bismuth blakemore blalock blom blount
    boas bochdalek boerhaave bohler borrmann bosniak bouchard bowen brock brodie broviac bruch brudzinski budd
    buerger burkitt buschke böhler caffey calot camurati cantlie caplan carney caroli castleman chagas chance
    chaput charcot chassaignac chiari chilaiditi child chopart churg cobb codman cognard colle colles corlette
    couinaud courvoisier cowper crohn cruveilhier cushing dandy dawson debakey devic dobhoff doppler down
    dressler drummond ductus dukes dupuytren durie ebstein eden ehlers eisenmenger engelmann epstein essex euler
    ewing fallot fanconi fazekas felson felty fitz fleischner flexner fogarty foley fontan fournier freiberg
    fuhrman galeazzi galen gamna ganz garland gartland gartner gaucher gerota ghon gibbon gissane glasgow
    gleason glisson golden golfer goodpasture goodsall gosselin graves greenfield groshong guillain gustilo
    guyon haglund halo hampton hartmann hartnell hashimoto haversian heberden heimlich henle henoch herring
    hesselbach hickman hirschsprung hodgkin hoffa holter homan horner hounsfield humphry hunner huntington ivor
    jaccoud jamieson jefferson judet juhl kaposi karnofsky kartagener kawasaki kellgren kerckring kerley kernig
    kienbock kienböck killian killip klatskin klippel knutsson kocher kohler korsakoff kramer kussmaul köhler
    ladd langer langerhans laplace larrey lauge legg lemierre lenke leriche letournel lewy lhermitte libman
    lichtenstein liddle lisfranc littre loeffler lofgren looser luer luftsichel lund luschka lyme löffler
    löfgren mackay macklin madelung maffucci magendie maisonneuve malgaigne mallampati mallory marfan mayo
    mcburney mccune meckel meigs mendelson menetrier merkel meyerding mikulicz milan milch mirizzi modic moebius
    mohs monro monteggia morgagni morison morquio morton mullerian müllerian naclerio neer nissen noonan nuck
    nyha oddi ogilvie ollier osgood osler ottawa paget pancoast papanicolaou parkes parkinson parkinson-white
    pauwels pellegrini perthes peyer peyronie phalen pipkin plummer poiseuille poland pompe poncet potain pott
    poupart preiser pringle prinzmetal pugh quincke quinton rai ranke ranson rathke raynaud recklinghausen
    reinke reiter rendu retzius riedel rigler robson rokitansky rolando rome romhilt rosai rotter rouviere roux
    rubens salter santorini sappey scarpa schatzki scheuermann schlatter schmorl schober schueller schwann
    schönlein scottie segond seldinger sengstaken sever sharpey sheehan shiley shone sinding sipple sister
    sjogren sjögren smoker sokolow spetzler spigelian spitz sprengel stafne steinberg stensen sternberg stieda
    still strauss stryker sturge sudeck svensson swan swyer sylvius takayasu takotsubo tarlov taussig tenckhoff
    tenon tessier thornwaldt tietze tillaux tinel todani tornwaldt tossy toynbee treitz trendelenburg treves
    trousseau tunica turcot valsalva vater verga vienna virchow volkmann waldenstrom waldenström waldeyer
    wallenberg warthin waterston wegener wenckebach wernicke westermark wharton whipple wilkins wilms winslow
    wirsung wolff worm wormian zenker ziehl zollinger zuckerkandl
    """
)

#: Devices, firms, contrast media, drugs, organisms, isotopes, places of a name that tells nothing, and the like.
PROPER = words_of(
    """
    abiomed ac acinetobacter actinomyces adamkiewicz african american amipaque angiojet arrow asia asian
    aspergillus australia austria bacillus bacteroides bard bartonella belgium bitewing blastomyces bravo brazil
    britain british bronchovue burkholderia canada candida caucasian celestin celsius chest-x china chinese
    chlamydia christmas citrobacter clostridium coccidioides conray cook cordis corynebacterium cov covid
    coxiella cronbach cryptococcus cypher davol denmark dotarem easter echinococcus ecoli eklund eliquis england
    english enterobacter enterococcus eovist escherichia ethibond europe european fahrenheit finland
    fisher-exact fluosol fr france francisella french frenchay friday fusobacterium ga gadavist gadobutrol
    gadovist gastrografin gd gelfoam german germany gore-tex gram greece greek haemophilus harrington hemophilus
    hemovac hispanic histoplasma holland hz impax impella india indian influenza iran iraq ireland irish isovue
    israel italian italy jackson-pratt japan japanese jejunal kaplan kelvin kendall kev kiel kirschner
    klebsiella korea kr lactobacillus latex latin legionella leishmania lipiodol listeria lokelma lovenox lu
    lucas luerlock magnevist mahurkar malecot mediport medtronic meier mev mexico micrococcus monday moraxella
    multihance mycobacterium mycoplasma neisseria netherlands nocardia norway omnipaque omniscan optiray
    orthofix paclitaxel pacs paracoccidioides pasteurella pegasys penrose peptostreptococcus permcath philips
    picc pneumocystis poland port portacath portugal prevotella prolene proteus providencia pseudomonas ranson
    reovist rhodococcus rickettsia roentgen russia salmonella sars saturday schistosoma scopix serratia sharps
    shigella siemens slovenia spain spanish staphylococcus stenotrophomonas sternotomy streptococcus
    strongyloides sunday surgicel sweden swiss switzerland taenia tc tesio thailand thursday toshiba toxocara
    toxoplasma trialysis trichomonas tuesday turkey ukraine ultravist ureaplasma urografin vaccutainer
    vacutainer varibar vicryl visipaque vivitrol wallstent wednesday wuhan xarelto xe yersinia zephyr
    """
)

#: Ordinary words that headings, lists and habits capitalise inside a sentence, and that all-capital reports consist of.
WORDS = words_of(
    """
    a abdomen abdominal abnormal abnormalities abnormality abnormally about above abscess absence absent access
    accession according acquired acquisition acromioclavicular across active acute addendum additional
    additionally adenopathy adequate adjacent admission admitted admitting advanced advancement advice advised
    after ag again age agent ago agree agreed agrees air airspace airway airways alert aligned alignment all
    allergies along already also although alveolar ambulatory amount amyloid an analysis anatomy and anemia
    anesthesia aneurysm angiogram angiography angulation ankle another anterior anteroposterior antibiotic
    antibiotics any aorta aortic ap apex apical apices apparent appear appearance appears appendix appropriate
    approved approximate approximately arch are area areas arising arm around arrow arrows artefact arterial
    arteries artery arthritis artifact as ascites aspect aspirated aspiration assess assessment associated
    asthma asymmetric asymptomatic at atelectasis atelectatic atherosclerosis atherosclerotic atrial atrium
    attempt attempted attending attenuation attestation author available average aware away axial axilla
    axillary back background bag band barium basal base based baseline bases basilar be because bedside been
    before behind being below benign best between beyond bibasal bibasilar bilateral bilaterally biliary biopsy
    bladder bleeding blood blunted blunting blurred body bone bones bony both bowel brain breast breath broad
    bronchi bronchial bronchiectasis bronchitis bronchogram bronchograms bronchopneumonia bronchus brother bulky
    but by calcification calcifications calcified calcium called calvarium can cancer cannot capsule carcinoma
    cardiac cardiologist cardiology cardiomediastinal cardiomegaly cardiopulmonary cardiothoracic care carina
    carotid case catheter catheters cause cavitary cavitation cavity cell cells central cerebellar cerebral
    certain cervical chamber chambers change changed changes characteristic characterized chest chf child
    chronic circumferential circumscribed clavicle clear cleared clearing clearly clinic clinical clinically
    clinician clip clips close closely closure coarse coils collapse collapsed collection colon column
    combination coming comment comments common commonly communicated compared comparison compartment compatible
    complaint complaints complete completely complex complicated complication component compression concern
    concerning conclusion conclusions concomitant condition confirm confirmed confluent congenital congestion
    congestive conglomerate consider consideration considered consistent consolidation consolidations
    consolidative contact contains contiguous continue continued contour contours contralateral contrast copd
    cord coronal coronary correlate correlation cortex cortical costophrenic cough coughing could count course
    courtesy cranial critical ct culture current currently curvature cuts cyst cystic cysts daily damage data
    date daughter day days de dead death decrease decreased decreases deep deeper defect definite definitely
    definitive deformity degeneration degenerative degree delayed demonstrate demonstrated demonstrates
    demonstrating denies dense densities density department dependent depicted depressed depth described despite
    detail detected determined developed development deviated deviation device devices diabetes diabetic
    diagnosed diagnosis diagnostic diameter diaphragm dictated differential difficult diffuse diffusely
    diffusion digital dilatation dilated dilation diminished direct disc discharge discrete discussed discussion
    disease disk dislocation displaced displacement dissection distal distance distended distention distinct
    distribution dl do doctor does doppler dorsal double down drain drainage drains dry due duodenum duration
    during dye dyspnea each early east eastern ecg echo ectasia ectatic edema edge effusion effusions either
    elbow elderly elective electronically elements elevated elevation elsewhere embolism emergency emergent
    emphysema emphysematous empyema encounter end endobronchial endotracheal enhancement enhancing enlarged
    enlargement enteric entire entirely epigastric episode equivocal erosion erosions esophageal esophagus
    essentially established et etiology ett evaluate evaluated evaluation even eventually every evidence evident
    evolving exacerbation exact exam examination examinations except exclude excluded exhibits expected
    expiration expiratory explain exposed exposure extend extending extends extension extensive extent external
    extra extrapleural extremity extrinsic extubated eye facet facial failure faint fall family fat father fatty
    feature features feeding feel female femoral femur fever few fibrosis fibrotic field fields fifth fig figs
    figure figure1 film film's films final finally finding findings finger first fissural fissure fistula five
    fixation flank flat flattened flattening flexion floor flow fluffy fluid fluids fluoroscopic fluoroscopy
    focal foci focus follow follow-up followed following followup foot for foreign fortunately found four fourth
    fracture fractured fractures fragment frames free from frontal full function further furthermore fusiform
    fusion gallbladder gas gastric gastroenterology general generalized generally generator genitourinary given
    gland glass glucose good grade gradual granuloma granulomas granulomatous great greater groin gross grossly
    ground group guidance guide had hand hardware has have haziness hazy he head healed healing health heart
    heavy heent height hematology hematoma hemidiaphragm hemidiaphragms hemithorax hemodynamic hemorrhage
    hemothorax hepatic her here hernia hiatal hiatus high hila hilar hilum hip his histologically history hold
    homogeneous horizontal hospital hospitalized hour hours however human humeral humerus husband
    hydropneumothorax hyperexpanded hyperexpansion hyperinflated hyperinflation hypertension hypoinflated
    hypoventilatory hypoxemia hypoxia hypoxic i icd icu identified idiopathic if ii iii ij il ileus iliac ill
    image imaged images imaging immediate immediately implant implanted impression impressive improved
    improvement improving in inability inadequate incidental including incomplete incompletely increase
    increased increasing increasingly indeterminate index indicate indicated indicates indicating indication
    indistinct indwelling infant infants infarct infarction infection infectious inferior infiltrate infiltrates
    infiltration infiltrative inflammation inflammatory inflated inflation informed infrahilar initial initially
    insertion inspiration inspiratory inspired instability instead insufficient intact intensive interestingly
    interlobar intermediate intermittent internal interpretation interpreted interstitial interstitium interval
    intervention intestinal into intra intracranial intraperitoneal intravenous introduced intubated intubation
    involving irregular is ischemia ischemic isolated it it's its iv joint joints jugular junction just kept
    kidney kidneys kink kinked knee known kyphosis label laboratory laceration lack laminar large largely larger
    last later lateral laterally latest layering lead leads learning least leave left leg lesion lesions less
    level levels life ligament like likely limit limitation limited limits line linear lines lingula lingular
    liver lll lobar lobe lobectomy lobes local localized location long-standing look loop loops lordosis
    lordotic loss low lower lucencies lucency lucent lul lumbar lung lungs lying lymph lymphadenopathy lymphoma
    made main mainstem maintained major male malignancy malignant malposition man management mandible many
    margin margins marked markedly marker marking markings mass masses mastectomy matter maximum may mean
    measure measured measurement measures measuring medial mediastinal mediastinum medical medications medicine
    mention metal metallic metastases metastasis metastatic mg microbiology micronodular micronodules
    microscopically mid middle midline mild mildly miliary min minimal minimally minor mixed mode moderate
    moderately monitoring month months more moreover morning most mother motion movement mr mri multi multifocal
    multilevel multiloculated multiple muscle muscles musculoskeletal name narrowed narrowing nasal nasogastric
    nature near nearly neck necrosis necrotizing need negative neither neonatal neonate neoplasm nephrology
    nerve neurological neurology new newly next night nineteen nipple no nodal node nodes nodular nodularity
    nodule nodules non noncontrast nondisplaced none nonspecific normal north northern nos not notable note
    noted notes notified number numerous nurse obliteration obscuration obscured obscures observed obstruction
    obtained obvious occasional occlusion occupation occurred odd of office often old older omental on once
    oncology one ongoing only opacification opacifications opacified opacities opacity operation operative or
    oral orbit order ordered organ organizing original orogastric orthopedic osseous osteoarthritis osteolytic
    osteomyelitis osteopenia osteopenic osteophyte osteophytes osteoporosis other others otherwise out outline
    outlined outside over overall overlapping overlies overload overlying overt oxygen pa pacemaker pacer pad
    page pain palpable pancreas pancreatic parapneumonic paraspinal parenchyma parenchymal part partial
    partially particular particularly past patchy patency patent pathologic pathology patient patients pattern
    pectus pediatric pediatrics pelvic pelvis pending penetration people per percutaneous perforation performed
    perfusion peribronchial pericardial pericardium perihilar period peripheral peripherally peritoneal persist
    persistent persistently persists personally pertinent phase phone physician picture picture's piece pigtail
    place placed placement plain plan plane plaque plaques plate platelike please pleura pleural pneumatocele
    pneumococcal pneumomediastinum pneumonectomy pneumonia pneumonias pneumonitis pneumoperitoneum
    pneumothoraces pneumothorax point points poor poorly population port portable portion portions position
    positioned positioning positive possibility possible possibly post posterior posteriorly postoperative
    postsurgical potential potentially pre precautions predominance predominant predominantly predominately
    preliminary presence present presentation presenting presents preserved pressure prevent previous previously
    primary prior probable probably procedure procedures process processes progress progressed progression
    progressive projecting projection projects prominence prominent prone proper prosthesis prosthetic
    prosthetics protein protocol proven provided proximal psychiatric pulmonary pulmonic pulse purposes quality
    question questionable questions radiation radiograph radiographic radiographically radiographs radiologic
    radiologically radiologist radiology radiopaque raised range rapid rate rather ratio ray re read reading
    reason recent recently recommend recommendation recommendations recommended record rectal recurrence
    recurrent redemonstrated redemonstration reduced reduction reexpansion refer referred referring reflect
    reflecting reflects regarding region regional regions regression related relation relative relatively remain
    remainder remaining remains remarkable remote removal removed renal renal-failure repair repeat replaced
    replacement report reported reportedly reports request requested require required resected resection
    resident residual resolution resolved resolving respect respectively respiration respiratory rest result
    results retained reticular reticulation reticulonodular retrocardiac retrosternal returned reveal revealed
    revealing reveals review reviewed revision rib ribs right ring rll rml room root rotated rotation round
    rounded routine rul ruled run sacral sacrum safe sagging sagittal same sarcoid sarcoidosis satisfactory scan
    scapula scar scarring scattered schedule sclerosis sclerotic scoliosis score screening screw screws seated
    second secondary section see seen segment segmental segments semi-upright sepsis septal serial series serum
    service seven several severe severity sex shadow shallow sharp she shift short shortness should shoulder
    show showed showing shown shows side sided sign signal signed significant significantly signs silhouette
    similar simple since single sinus sinuses site six sixty size skin skull slight slightly slowly small
    smaller smoker smoking smooth so social soft some somewhat son sore south southern space spaces specific
    specifically spiculated spinal spine spleen splenic spondylosis spot spread sputum stability stable stage
    staging standard standing stat status stent stents sternal sternotomy sternum steroid steroids still stomach
    stone stones stool straight strand stranding streaky stroke strongly structure structures students students'
    studies study subacute subclavian subcutaneous subdiaphragmatic subject suboptimal subpleural subsegmental
    subsequent subsequently subtle successful such sufficient suggest suggested suggesting suggestion suggestive
    suggests superimposed superior supine support supportive supraclavicular sure surgery surgical surrounding
    suspect suspected suspension suspicion suspicious sutures svc swan swelling symmetric symptoms syndrome
    system systemic table tachypnea taken teaching tear technique technologist telephone temporary ten tension
    terminal terminates test testing tests than that the their then therapy there there's therefore these they
    thick thickened thickening thin third thoracic thoracostomy thorax thorough those though three throat
    throughout thyroid tibia tibial time tiny tip tissue tissues tmax to today together tomography too
    tortuosity tortuous total toward trabecular trace trachea tracheal tracheobronchial tracheostomy tracking
    tract transcribed transferred transient transplant transthoracic transverse trauma traumatic traverses
    treated treatment tree trial triple true tube tuberculosis tubes tumor tumour twelve twice two type
    ultrasound unable uncertain unchanged uncomplicated under underlying underpenetrated unfortunately
    unilateral unit unit's unknown unlikely unremarkable until unusual unusually up upgraded upon upper upright
    upward urgent urology use usual uterus vaccination valve valves valvular variable variant vary vascular
    vascularity vasculature vein veins vena venous vent ventilation ventilatory ventricle ventricles ventricular
    verified versus vertebra vertebrae vertebral vertical very vessel vessels vicinity video view views viral
    virus visceral visible visualization visualize visualized vital vitals vocal volume volumes vomiting wall
    walls ward was water we weak weakness wedge week weeks weight well were west western wet when where whether
    which while white-out who whole wide widened widening width wife will window wire wires with within without
    woman worse worsened worsening would wound wrist x x-ray x-rays xray year years yesterday yet you zero zone
    zones
    """
)

#: Words that carry a sentence and are no name, whatever the case: what may follow a title without being one's holder.
FUNCTION = words_of(
    """
    dr drs mr mrs ms prof professor messrs
    a about after again agreed also an and are as at aware be been before but by called came can could did do
    does for from had has have he her him his i if immediately in is it its later may not of office on or our
    service she should so staff stated states team than that the their them then there these they this to today
    under until was we were when where which who whom will with would yesterday
    """
)

#: Abbreviations in capitals that a list may join by a comma ("COPD, CHF"), where names would be joined so too.
ACRONYMS = words_of(
    """
    AAA ABPA ACE AIDS AKI AML AP ARDS AS ASD AVF AVM BAL BBB BMI BNP BP CABG CAD CBC CCU CF CHF CKD CLL CML CMV
    CNS COP COPD CPAP CRP CSF CT CTA CVA CVC CVL CXR DDX DIC DISH DJD DM DVT DX EBV ECG ECMO EF EKG ER ERCP ESR
    ESRD ET ETT FB FNA GCS GERD GGO GI GIST GU HCC HD HF HIV HRCT HTN IABP IBD ICD ICH ICU IJ ILD IPF IUD IV IVC
    IVF JVD KUB LAD LAM LBBB LDH LLL LN LUL LV LVAD LVH MAC MI MR MRA MRI MRSA MS MVA MVC NG NGT NICU NSCLC NSIP
    OA OG OGT OR OSA PA PACS PCP PCR PDA PE PEEP PEG PET PFO PICC PICU PJP PNA PO POD PPM PTX RA RBBB RLL RLQ
    RML RSV RUL RUQ RV SAH SARS SCLC SDH SIRS SLE SOB SVC TAVR TB TEE TIA TIPS TNM TPN TTE UIP URI US UTI VATS
    VP VSD VT WBC XR
    """
)

#: A capitalised word before one of these is what it is called after.
NAMED_THINGS = regex.compile(
    r"(?:catheter|line|tube|drain|sign|syndrome|disease|disorder|fracture|lesion|classification|score|grade"
    r"|type|stage|criteri(?:a|on)|node"
    r"|nodule|procedure|operation|repair|shunt|filter|stent|valve|view|position|projection|man(?:eu|oeu)ver"
    r"|test|method|angle|space|pouch|fossa"
    r"|cave|ligament|fascia|bod(?:y|ies)|cyst|hernia|tumou?r|lymphoma|sarcoma|carcinoma|malformation|anomaly"
    r"|deformity|duct|gland"
    r"|tria(?:d|ngle)|hump|ring|web|tendon|foramen|canal|ventricle|artery|vein|membrane|capsule|granulomatosis"
    r"|thyroiditis|palsy"
    r"|contracture|index|scale|system|scanner|tracheostomy|device|pump|clip|plate|rod|nail|screw|wire"
    r"|prosthesis|graft|bypass"
    r"|fundoplication|anastomosis|reconstruction|diverticul(?:um|a)|abscess|calcification|injury|phenomenon"
    r"|effect|stain|virus|bacill(?:us|i)"
    r"|finger|cirrhosis|matter|zone|window|contrast|needle|balloon|dissection|aneurysm|spot|belt|deformities"
    r"|fractures-dislocation)s?(?!\p{L})",
    regex.IGNORECASE,
)
#: A capitalised word behind one of these and "of" is, too.
THINGS_OF = regex.compile(
    r"(?i:ligament|circle|pouch|space|triangle|foram(?:en|ina)|canal|node|nodule|cave|ampulla|sphincter|bundle"
    r"|tetralogy|angle|islets?|loop|ducts?|fossa"
    r"|valves?|crypts?|line|sign|vein|artery|fascia|bursa|tubercle|tuberosity|glands?|organ|fold|sinus|disease"
    r"|syndrome|fibers?|fibres?|layer|layers"
    r"|grade|stage|type|fractures?|cells?|triad|test)\s+of\s+(?:the\s+)?$"
)
#: Endings that medicine's words have and names do not.
ENDINGS = regex.compile(
    r"(?:itis|osis|oses|ectomy|ostomy|otomy|graphy|graphic|scopy|emia|aemia|pathy|plasty|thorax|megaly|ology"
    r"|ation|ations|ition|ction|ctions|ively|ically"
    r"|ular|oid|genic|ella|coccus|cocci|bacter|bacteri(?:um|a)|myces|monas|plasma|mycin|cillin|floxacin|azole"
    r"|statin|parin|mab|tinib|iasis|iency|ectasis|ectasia"
    r"|pnea|pnoea|uria|algia|trophy|trophic|sclerosis|lysis|desis|pexy|tripsy|gram|grams|ness|ized|ised|ility"
    r"|ance|ence|ably|ible)$"
)


def is_ordinary(word: str) -> bool:
    """Whether a word is one of the ordinary ones or an abbreviation, whatever is called after people set aside."""
    return word.lower() in WORDS or word.lower() in FUNCTION or word in ACRONYMS


def is_known(word: str, more: frozenset[str] = frozenset()) -> bool:
    """Whether a word, every part of it when hyphenated, is in the lists (without case) or formed like medicine's."""
    lower = word.lower().replace("’", "'").removesuffix("'s").removesuffix("'")
    if lower in more or _listed(lower, more):
        return True
    parts = [part for part in lower.split("-") if part]
    return len(parts) > 1 and all(len(part) == 1 or _listed(part, more) for part in parts)


def _listed(lower: str, more: frozenset[str]) -> bool:
    if lower in WORDS or lower in FUNCTION or lower in PROPER or lower in EPONYMS or lower in more:
        return True
    singular = lower.removesuffix("s")
    return singular in WORDS or singular in more or (len(lower) > 5 and ENDINGS.search(lower) is not None)
